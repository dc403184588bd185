"""How many canaries a run plants, and how many guesses are made about them: fixed beforehand."""

from dataclasses import dataclass

MOST = 100_000
"""More canaries than a run plants: bounding epsilon takes time and memory by how many there are."""


@dataclass(frozen=True, kw_only=True)
class CanarySettings:
    """Section ``canaries`` of params.yaml; all of it is public."""

    count: int
    """How many units join the training units, each by a fair coin; 0 plants none."""
    rows_per_unit: int
    """Equal rows of each."""
    words: int
    """Words of the random answer."""
    guessed: float
    """Share of the canaries about whom something is guessed: that one half of it was in, the other out."""
    seed: int
    """Another one gives other canaries and other coins. An earlier release has seen the coins of its seed:
    whoever chose this run by looking at that one takes another."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no canaries, or none to guess about."""
        if self.count > MOST:
            raise ValueError(f"canaries.count can be at most {MOST}, got {self.count}")
        if self.count < 0 or self.rows_per_unit < 1 or self.words < 1 or self.seed < 0:
            raise ValueError(
                "canaries.count and canaries.seed cannot be negative, and a canary has at least one row and "
                f"one word; got count {self.count}, rows_per_unit {self.rows_per_unit}, words {self.words}, "
                f"seed {self.seed}"
            )
        if not 0 < self.guessed <= 1:
            raise ValueError(f"canaries.guessed must lie above 0 and be at most 1, got {self.guessed}")
        if self.count and not self.guesses_of_each():
            raise ValueError(
                f"canaries.guessed {self.guessed} of {self.count} canaries leaves none to guess about: raise "
                "canaries.guessed or canaries.count"
            )

    def guesses_of_each(self) -> int:
        """Return k+ and k-, which are equal: fixed here, before anybody looks."""
        return int(self.count * self.guessed / 2)
