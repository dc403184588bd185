"""How one step looks at the sampled units: clipped per-unit gradients, or plain ones.

Slopes are in zeroth_order.py, the section of params.yaml in estimator.py.

Every process of a stage takes its share of the units, and all get the sum.

Shapes: P trainable weights.
"""

import torch
from torch import Tensor

from stages.privacy.clipping import ClippedSum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.unit_gradients import UnitGradients
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch, Units
from stages.training.runs import runs_of


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
