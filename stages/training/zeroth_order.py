"""Zeroth-order steps: the slope of every unit's loss along public directions, by forward passes alone.

DPZero (Zhang et al. 2023, arXiv 2310.09639) is one direction a step; DP-AggZO (USENIX Security 2025) is K,
whose slopes are clipped together. Nothing is differentiated, so no activation is kept.

Shapes: U units, K directions, R rows of a micro-batch, P trainable weights.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from stages.privacy.clipping import ClippedSum, clip_sum
from stages.privacy.clipping_rule import Clipping, Norm
from stages.privacy.directions import Directions
from stages.privacy.noise import NoisySum
from stages.privacy.trainable_layers import TrainableLayers
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch, Units
from stages.training.runs import runs_of


def clipped_slope_sum(
    learner: Learner, units: Units, directions: Directions, clipping: Clipping, norm: Norm, step: int
) -> ClippedSum:
    """Return the sum over units of each unit's K slopes, clipped together in ``norm``, shape (K,).

    A slope is (L(w + phi z) - L(w - phi z)) / (2 phi), L the mean loss of the unit's rows.

    Guarantee: one unit moves the sum by at most ``clipping.clip`` in ``norm``; the sum does not depend on how
    units are cut into micro-batches or divided among processes, beyond rounding, which the division by 2 phi
    enlarges. The weights are left as they were, bit for bit.

    Edge cases: no units gives zeros; a unit with a slope that is not finite adds nothing.
    """
    slopes_UK = unit_slopes(learner, units, directions, step)
    clipped = clip_sum(slopes_UK, clipping.clip, rule=clipping.rule, norm=norm)
    return ClippedSum(learner.ranks.total(clipped.sum_P), clipping.clip, norm)


@torch.no_grad()
def unit_slopes(learner: Learner, units: Units, directions: Directions, step: int) -> Tensor:
    """Return this process's units' slopes along every direction, shape (U, K) in float64 on the device."""
    runs = list(runs_of(learner, units))
    found = []
    for direction in range(directions.count):
        ahead_U, back_U = (
            _unit_losses(learner, runs, directions, (step, direction), sign) for sign in (1.0, -1.0)
        )
        found.append((ahead_U - back_U) / (2 * directions.perturbation))
    return torch.stack(found, dim=1)


def along(noisy: NoisySum, directions: Directions, trainable: TrainableLayers, step: int) -> NoisySum:
    """Return the mean over directions of noisy slope times direction, shape (P,): a noisy gradient sum.

    Guarantee: post-processing of the noisy slopes by public directions. Noise of standard deviation s on each
    slope is noise of standard deviation s / sqrt(K) on each weight.
    """
    slopes_K = noisy.sum_P.tolist()
    parts = []
    for name, weight in trainable.parameters().items():
        total = torch.zeros(weight.shape, dtype=noisy.sum_P.dtype)
        for direction, slope in enumerate(slopes_K):
            total.add_(directions.part(step, direction, name, weight.shape), alpha=slope / directions.count)
        parts.append(total.flatten())
    return NoisySum(torch.cat(parts).to(noisy.sum_P.device))


def _unit_losses(
    learner: Learner,
    runs: Iterable[tuple[Learner, MicroBatch, bool]],
    directions: Directions,
    place: tuple[int, int],
    sign: float,
) -> Tensor:
    """Return every unit's mean loss at weights moved along one direction, shape (U,) in float64."""
    found = [torch.zeros(0, dtype=torch.float64, device=learner.device)]
    with _moved(learner.trainable, directions, place, sign):
        for running, batch, is_idle in runs:
            losses_R = running.losses(batch.rows).double()
            if is_idle:
                continue
            weight_R = running.segments(batch).row_weights(losses_R)
            unit_of_row = torch.from_numpy(batch.unit_of_row).to(losses_R.device)
            found.append(losses_R.new_zeros(batch.units).index_add_(0, unit_of_row, losses_R * weight_R))
    return torch.cat(found)


@contextmanager
def _moved(
    trainable: TrainableLayers, directions: Directions, place: tuple[int, int], sign: float
) -> Iterator[None]:
    """Move the weights by ``sign`` x phi along a direction for a while."""
    before_P = trainable.flat()
    try:
        for name, weight in trainable.parameters().items():
            part = directions.part(*place, name, weight.shape).to(weight.device, weight.dtype)
            weight.add_(part, alpha=sign * directions.perturbation)
        yield
    finally:
        trainable.assign(before_P)
