"""Faults that engines have had, each a patch of the real one; ``with FAULT():`` the engine has it."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.white_box import seeded_noise
from stages.core.ranks import Ranks
from stages.ledger.population_key import PopulationKey
from stages.privacy.clipping import ClippedSum, clip_sum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.noise import NoisySum
from stages.privacy.prepared_noise import PreparedNoise, StandardNoise
from stages.privacy.segments import Segments
from stages.privacy.stream import Stream, Streams
from stages.privacy.unit_gradients import UnitGradients
from stages.records import split
from stages.records.row import Split
from stages.training import estimators, mechanism, zeroth_order
from stages.training.estimators import plain_gradient_sum
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch, Units

Patch = AbstractContextManager[Any]
ROWS = 4
"""Rows of every unit that is split."""


def no_noise() -> Patch:
    """Publish the clipped sum as it is."""
    return patch.object(mechanism, "add_noise", lambda clipped, sigma, noise: NoisySum(clipped.sum_P))


def noise_from_a_known_seed() -> Patch:
    """Draw noise from a generator with the seed that params.yaml shows."""
    return patch.object(PreparedNoise, "_draw", lambda self, step: seeded_noise(step))


def clipping_after_the_mean() -> Patch:
    """Clip the mean of all units' gradients, as ``clip_grad_norm_`` does, with noise for one unit."""

    def clipped(learner: Learner, units: Units, clipping: Clipping, support: Any = None) -> ClippedSum:
        total_P, count = plain_gradient_sum(learner, units).double(), max(len(units), 1)
        mean_P = clip_sum(total_P[None] / count, clipping.clip).sum_P
        return ClippedSum(count * mean_P, clipping.clip)

    return patch.object(mechanism, "clipped_gradient_sum", clipped)


def rows_clipped_then_summed() -> Patch:
    """Take every row for a unit of its own."""

    def by_row(learner: Learner, batch: MicroBatch, support: frozenset[str] | None) -> UnitGradients:
        rows = np.arange(len(batch.rows))
        images = np.repeat(rows, [len(learner.encoded.rows[row].images) for row in batch.rows])
        segments = Segments.of(len(rows), row=rows, image=images)
        return UnitGradients.of(learner.trainable, segments, lambda: learner.losses(batch.rows))

    return patch.object(estimators, "_unit_gradients", by_row)


def slopes_clipped_one_by_one() -> Patch:
    """Clip each of a unit's slopes alone, as if every direction were a mechanism of its own."""

    def alone(slopes_UK: Tensor, clip: float, **more: Any) -> ClippedSum:
        each = [clip_sum(slopes_UK[:, [index]], clip, **more).sum_P for index in range(slopes_UK.shape[1])]
        return ClippedSum(torch.cat(each), clip)

    return patch.object(zeroth_order, "clip_sum", alone)


def first_dimension_taken_as_the_unit() -> Patch:
    """Clip each entry of a layer's first dimension, be it an image or a row, as hooks on layers do.

    It stands for engines of that kind; ours refuses such a layer. Nothing else is wrong with it: each layer
    is clipped at its share of the bound, and rows of a unit are averaged.
    """

    def clipped(learner: Learner, units: Units, clipping: Clipping, support: Any = None) -> ClippedSum:
        layers = learner.trainable.layers
        total_P = torch.zeros_like(learner.trainable.flat(), dtype=torch.float64)
        for batch in learner.shared_micro_batches(units):
            found: dict[str, Tensor] = {}
            with _watched(learner, found):
                losses_R = learner.losses(batch.rows)
                weight_R = learner.segments(batch).row_weights(losses_R)
                (losses_R * weight_R).sum().backward()  # type: ignore[no-untyped-call]
            learner.model.zero_grad()
            bound = clipping.clip / math.sqrt(len(layers))
            total_P += torch.cat([_entries_clipped(found, name, bound) for name in layers])
        return ClippedSum(learner.ranks.total(total_P), clipping.clip)

    return patch.object(mechanism, "clipped_gradient_sum", clipped)


def a_unit_in_two_splits() -> Patch:
    """Split by row, not by unit: the keyed hash is of the unit and of which of its rows it is."""
    real, asked = split.split_of, Counter[str]()

    def by_row(unit: str, key: PopulationKey, heldout: float) -> Split:
        asked[unit] += 1
        return real(f"{unit}-{asked[unit] % ROWS}", key, heldout)

    return patch.object(split, "split_of", by_row)


def half_scale_noise() -> Patch:
    """Add noise of half the planned scale."""
    real = mechanism.add_noise
    return patch.object(mechanism, "add_noise", lambda clipped, sigma, noise: real(clipped, sigma / 2, noise))


def shuffling_for_poisson() -> Patch:
    """Draw batches of one size from a shuffled order, as ordinary loaders do."""
    order: list[NDArray[np.int64]] = []
    dice = np.random.default_rng(0)

    def shuffled(units: int, rate: float, stream: Stream) -> NDArray[np.int64]:
        if not order:
            order.extend(np.array_split(dice.permutation(units), math.ceil(1 / rate)))
        return np.sort(order.pop())

    return patch.object(mechanism, "poisson_sample", shuffled)


def the_same_sampling_on_every_rank() -> Patch:
    """Have every process look at the whole sample, and add up what all found."""
    return patch.object(Ranks, "share", lambda self, items: items)


def noise_on_some_tensors_only() -> Patch:
    """Leave the last tensor without noise."""
    real = PreparedNoise._draw

    def draw(self: PreparedNoise, step: int) -> Tensor:
        drawn_P = real(self, step)
        drawn_P[len(drawn_P) - list(self._sizes.values())[-1] :] = 0
        return drawn_P

    return patch.object(PreparedNoise, "_draw", draw)


def counters_that_start_again() -> Patch:
    """Draw the noise of the first step at every step."""
    return patch.object(
        PreparedNoise, "at", lambda self, step: StandardNoise(cast(Tensor, self._draw(0)).to(self._device))
    )


def one_stream_for_all_tensors() -> Patch:
    """Leave the name of a tensor out of its stream, so that equal shapes get equal noise."""
    real = Streams.at
    return patch.object(
        Streams, "at", lambda self, purpose, step, name="", draw=0: real(self, purpose, step, "", draw)
    )


@contextmanager
def _watched(learner: Learner, found: dict[str, Tensor]) -> Iterator[None]:
    """Keep what every layer is given (``name``) and the gradient of what it returns (``name'``)."""

    def keep(name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], returned: Tensor) -> None:
            found[name] = given[0].detach()
            returned.register_hook(lambda gradient: found.__setitem__(f"{name}'", gradient))

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in learner.trainable.layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _entries_clipped(found: dict[str, Tensor], name: str, clip: float) -> Tensor:
    given_ND, slopes_NE = found[name].double(), found[f"{name}'"].double()
    norms_N = given_ND.norm(dim=1) * slopes_NE.norm(dim=1)
    factor_N = (clip / norms_N).clamp(max=1.0)
    return torch.einsum("n,ne,nd->ed", factor_N, slopes_NE, given_ND).flatten()
