"""How one step looks at the sampled units: clipped per-unit gradients, or plain ones.

Every process of a stage takes its share of the units, and all get the sum.

Shapes: P trainable weights.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stages.privacy.clipping import ClippedSum, Clipping, Groups, Rule
from stages.privacy.unit_gradients import UnitGradients
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch, Units
from stages.training.synthetic_rows import idle_batch


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Section ``estimator`` of params.yaml."""

    kind: Literal["gradient", "nonprivate"]
    clip: float
    """Largest L2 norm of one unit's gradient; unused by nonprivate, like the next two."""
    clip_rule: Rule
    """flat: min(1, clip / norm). automatic: clip / (norm + 0.01)."""
    clip_groups: Groups
    """whole: one norm a unit. layer: one a layer, each bounded by clip / sqrt(layers)."""
    rows_per_unit: int
    """At most so many rows of a sampled unit enter a step; their gradients are averaged."""

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        if not (self.clip > 0 and math.isfinite(self.clip)):
            raise ValueError(f"estimator.clip must be positive and finite, got {self.clip}")
        if self.rows_per_unit < 1:
            raise ValueError(f"estimator.rows_per_unit must be at least 1, got {self.rows_per_unit}")

    def clipping(self) -> Clipping:
        """Return how a unit is bounded."""
        return Clipping(self.clip, self.clip_rule, self.clip_groups)


def clipped_gradient_sum(learner: Learner, units: Units, clipping: Clipping) -> ClippedSum:
    """Return the sum over units of each unit's mean gradient, clipped (DP-SGD, Abadi et al. 2016).

    Guarantee: one unit moves the sum by at most ``clipping.clip``; the sum does not depend on how units are
    cut into micro-batches or divided among processes, beyond rounding.

    Edge cases: no units, here or anywhere, gives zeros; a process without units joins the sum all the same.
    """
    total_P = torch.zeros_like(learner.trainable.flat(), dtype=torch.float64)
    for running, batch, is_idle in _runs(learner, units):
        found = _unit_gradients(running, batch)
        if not is_idle:
            total_P += found.clipped_sum(clipping).sum_P
        del found  # or what it keeps would be alive beside the next batch
    return ClippedSum(learner.ranks.total(total_P), clipping.clip)


def plain_gradient_sum(learner: Learner, units: Units) -> Tensor:
    """Return the sum over units of each unit's mean gradient, unclipped: the reference without privacy."""
    weights = list(learner.trainable.parameters().values())
    total_P = torch.zeros_like(learner.trainable.flat())
    for running, batch, is_idle in _runs(learner, units):
        losses_R = running.losses(batch.rows)
        weight_R = running.segments(batch).row_weights(losses_R)
        gradients = torch.autograd.grad((losses_R * weight_R).sum(), weights)
        if not is_idle:
            total_P += torch.cat([gradient.flatten() for gradient in gradients])
    return learner.ranks.total(total_P)


def _runs(learner: Learner, units: Units) -> Iterator[tuple[Learner, MicroBatch, bool]]:
    """Yield what goes through the model, batch after batch, and whether its result counts for nothing.

    Where the frozen base is sharded, every process runs the model equally often, for each run gathers its
    weights from all; who has fewer batches than others runs it idly on random rows.
    """
    batches = learner.shared_micro_batches(units)
    most = learner.ranks.most(len(batches)) if learner.speed.shard_base else len(batches)
    yield from ((learner, batch, False) for batch in batches)
    for _ in range(most - len(batches)):
        yield *idle_batch(learner), True


def _unit_gradients(learner: Learner, batch: MicroBatch) -> UnitGradients:
    return UnitGradients.of(learner.trainable, learner.segments(batch), lambda: learner.losses(batch.rows))
