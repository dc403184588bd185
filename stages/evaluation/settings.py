"""How held-out figures are released."""

from dataclasses import dataclass
from typing import Literal

from stages.privacy.noised_sum import NoisedSum
from stages.privacy.plan import Beside

EVERYTHING, OTHER = "all", "other"
"""The sum over kinds, and the kind of rows whose kind is not declared."""


@dataclass(frozen=True, kw_only=True)
class NoisedCounts(NoisedSum):
    """The part ``private`` of section ``evaluate``: one noised vector of counts."""

    kinds: tuple[str, ...]
    """Kinds of question that are counted apart; public, so never read from held-out records."""

    def __post_init__(self) -> None:
        """Refuse a kind that is named twice or means something else."""
        super().__post_init__()
        if len(set(self.kinds)) != len(self.kinds) or {EVERYTHING, OTHER} & set(self.kinds):
            raise ValueError(
                f"evaluate.private.kinds names each kind once, and not '{EVERYTHING}' or '{OTHER}', which "
                f"are counted anyway; got {list(self.kinds)}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Section ``evaluate`` of params.yaml."""

    release: Literal["public", "private"]
    """``public`` declares that the held-out records are public, so that exact accuracy may be published;
    ``private`` publishes noised counts, which are charged."""
    private: NoisedCounts
    """Unused where ``release`` is public."""

    def planned(self) -> tuple[Beside, ...]:
        """Return what releasing the figures will spend, beside training."""
        if self.release == "public":
            return ()
        spent = {"rate": self.private.rate, "noise_multiplier": self.private.noise_multiplier}
        return (Beside(stage="evaluate", split="heldout", **spent),)
