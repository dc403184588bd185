"""How one step looks at the sampled units: clipped per-unit gradients, or plain ones.

Slopes are in zeroth_order.py.

Every process of a stage takes its share of the units, and all get the sum.

Shapes: P trainable weights.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.privacy.clipping import ClippedSum
from stages.privacy.clipping_rule import Clipping, Groups, Rule
from stages.privacy.directions import Directions, Distribution
from stages.privacy.plan import EstimatorKind
from stages.privacy.unit_gradients import UnitGradients
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch, Units
from stages.training.runs import runs_of


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


def clipped_gradient_sum(
    learner: Learner, units: Units, clipping: Clipping, support: frozenset[str] | None = None
) -> ClippedSum:
    """Return the sum over units of each unit's mean gradient, clipped (DP-SGD, Abadi et al. 2016).

    Gradients of weights outside ``support`` are masked before they are clipped; None masks nothing.

    Guarantee: one unit moves the sum by at most ``clipping.clip``, and outside the support not at all; the
    sum does not depend on how units are cut into micro-batches or divided among processes, beyond rounding.

    Edge cases: no units, here or anywhere, gives zeros; a process without units joins the sum all the same.
    """
    total_P = torch.zeros_like(learner.trainable.flat(), dtype=torch.float64)
    for running, batch, is_idle in runs_of(learner, units):
        found = _unit_gradients(running, batch, support)
        if not is_idle:
            total_P += found.clipped_sum(clipping).sum_P
        del found  # or what it keeps would be alive beside the next batch
    return ClippedSum(learner.ranks.total(total_P), clipping.clip)


def plain_gradient_sum(learner: Learner, units: Units) -> Tensor:
    """Return the sum over units of each unit's mean gradient, unclipped: the reference without privacy."""
    weights = list(learner.trainable.parameters().values())
    total_P = torch.zeros_like(learner.trainable.flat())
    for running, batch, is_idle in runs_of(learner, units):
        losses_R = running.losses(batch.rows)
        weight_R = running.segments(batch).row_weights(losses_R)
        gradients = torch.autograd.grad((losses_R * weight_R).sum(), weights)
        if not is_idle:
            total_P += torch.cat([gradient.flatten() for gradient in gradients])
    return learner.ranks.total(total_P)


def _unit_gradients(learner: Learner, batch: MicroBatch, support: frozenset[str] | None) -> UnitGradients:
    segments = learner.segments(batch)
    return UnitGradients.of(learner.trainable, segments, lambda: learner.losses(batch.rows), support=support)
