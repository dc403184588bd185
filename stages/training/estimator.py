"""Section ``estimator`` of params.yaml: how a step looks at the sampled units."""

import math
from dataclasses import dataclass

from stages.privacy.clipping_rule import Clipping, Groups, Rule
from stages.privacy.directions import Directions, Distribution
from stages.privacy.plan import EstimatorKind


@dataclass(frozen=True, kw_only=True)
class ZerothOrder:
    """The part ``zeroth_order``: directions a step, and the noise on the slopes along them."""

    directions: int
    """Public random directions a step (K), each two forward passes; 1 is DPZero, more are DP-AggZO."""
    perturbation: float
    """How far the weights are moved along a direction, forth and back."""
    noise: Distribution
    """laplace: a unit's slopes are clipped in L1 norm and the guarantee is pure, at any delta, 0 included."""

    def __post_init__(self) -> None:
        """Refuse directions along which nothing can be seen."""
        self.from_seed(0)

    def from_seed(self, seed: int) -> Directions:
        """Return the directions of a public seed."""
        return Directions(count=self.directions, perturbation=self.perturbation, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Section ``estimator`` of params.yaml."""

    kind: EstimatorKind
    clip: float
    """Largest norm of one unit's gradient, or of its slopes; unused by nonprivate, like the next two."""
    clip_rule: Rule
    """flat: min(1, clip / norm). automatic: clip / (norm + 0.01)."""
    clip_groups: Groups
    """whole: one norm a unit. layer: one a layer, each bounded by clip / sqrt(layers)."""
    rows_per_unit: int
    """At most so many rows of a sampled unit enter a step; their gradients or losses are averaged."""
    zeroth_order: ZerothOrder
    """Unused by other kinds."""

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        if not (self.clip > 0 and math.isfinite(self.clip)):
            raise ValueError(f"estimator.clip must be positive and finite, got {self.clip}")
        if self.rows_per_unit < 1:
            raise ValueError(f"estimator.rows_per_unit must be at least 1, got {self.rows_per_unit}")
        if self.kind == "zeroth_order" and self.clip_groups != "whole":
            raise ValueError(
                "estimator.clip_groups layer bounds the gradient of every layer, and zeroth_order has none: "
                "set it to whole"
            )

    def clipping(self) -> Clipping:
        """Return how a unit is bounded."""
        return Clipping(self.clip, self.clip_rule, self.clip_groups)

    def directions(self, seed: int) -> Directions | None:
        """Return the directions of zeroth order, None for other kinds; ``seed`` is public."""
        return self.zeroth_order.from_seed(seed) if self.kind == "zeroth_order" else None
