"""The people (or images, or patients) whose privacy is spent, declared once and never counted."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Population:
    """Section ``population`` of params.yaml: what budgets and charges belong to.

    Every field is a public constant: an edited data set is still the same population.
    """

    name: str
    public: bool
    """A demonstration population: releases are recorded and never refused."""
    max_units: int
    """Declared bound on the units, train and held out together; delta stays below ``1 / max_units``."""
    unit: str
    """What one privacy unit is, in words."""

    def admits_exact_figures(self, split: object) -> bool:
        """Tell whether exact figures on held-out units may be published without a charge.

        ``split`` is the field of the source that names who is held out. Without one they are a random part
        of the population, and public only where all of it is.
        """
        return self.public or split is not None

    def __post_init__(self) -> None:
        """Refuse a population that no budget can belong to."""
        if not self.name or self.name != self.name.strip():
            raise ValueError(f"population.name must be text without blanks around it, got {self.name!r}")
        if self.max_units < 1:
            raise ValueError(f"population.max_units must be at least 1, got {self.max_units}")
        if not self.unit.strip():
            raise ValueError("population.unit must say in words what one unit is, such as 'patient'")
