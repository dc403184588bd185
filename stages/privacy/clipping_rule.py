"""How a privacy unit's gradient is scaled: what a plan says of it, without what does it."""

import math
from dataclasses import dataclass
from typing import Literal

Rule = Literal["flat", "automatic"]
Groups = Literal["whole", "layer"]
Norm = Literal["l2", "l1"]


@dataclass(frozen=True)
class Clipping:
    """How a unit's gradient is scaled; ``clip`` bounds its L2 norm over all weights, whatever the rule."""

    clip: float
    rule: Rule = "flat"
    """flat: min(1, clip / norm). automatic: clip / (norm + 0.01), every unit nearly at the bound."""
    groups: Groups = "whole"
    """whole: one norm a unit. layer: each of L layers has its own norm and the bound clip / sqrt(L)."""

    def __post_init__(self) -> None:
        """Refuse a bound that bounds nothing."""
        if not 0 < self.clip < math.inf:
            raise ValueError(f"clip must be positive and finite, got {self.clip}")
