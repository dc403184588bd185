"""How one step looks at the sampled units: clipped per-unit gradients, or plain ones.

Shapes: R rows in a micro-batch, U units in it, P trainable weights.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.core.speed import Speed
from stages.privacy.clipping import ClippedSum, Clipping, Groups, Rule
from stages.privacy.segments import Segments
from stages.privacy.trainable_layers import TrainableLayers
from stages.privacy.unit_gradients import UnitGradients
from stages.records.encoded import EncodedSet, collate

Units = Sequence[NDArray[np.int64]]
"""The rows of each sampled unit."""


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


@dataclass(frozen=True)
class Learner:
    """A model with adapters, the rows it learns from, and how many tokens fit at once."""

    model: torch.nn.Module
    family: Any
    trainable: TrainableLayers
    encoded: EncodedSet
    speed: Speed

    @property
    def device(self) -> str:
        """Return where the model is."""
        return self.speed.device

    def losses(self, rows: Sequence[int]) -> Tensor:
        """Return the loss of each row, shape (R,)."""
        losses_R: Tensor = self.family.row_losses(self.model, collate(self.encoded, rows).to(self.device))
        return losses_R

    def micro_batches(self, units: Units) -> Iterator[tuple[list[int], NDArray[np.int64], int]]:
        """Cut units, never a unit, into groups that fit; yields rows, the unit of each from 0, and units."""
        lengths = np.array([len(row.input_ids) for row in self.encoded.rows])
        return micro_batches(units, lengths, self.speed.micro_batch, self.speed.micro_batch_tokens)

    def segments(self, rows: Sequence[int], unit_of_row: NDArray[np.int64], units: int) -> Segments:
        """Return which unit every row and every image of a batch belongs to."""
        images = [len(self.encoded.rows[row].images) for row in rows]
        return Segments.of(units, row=unit_of_row, image=np.repeat(unit_of_row, images))


def clipped_gradient_sum(learner: Learner, units: Units, clipping: Clipping) -> ClippedSum:
    """Return the sum over units of each unit's mean gradient, clipped (DP-SGD, Abadi et al. 2016).

    Guarantee: one unit moves the sum by at most ``clipping.clip``; the sum does not depend on how units are
    cut into micro-batches, beyond rounding.

    Edge cases: no units gives zeros.
    """
    total = ClippedSum(torch.zeros_like(learner.trainable.flat(), dtype=torch.float64), clipping.clip)
    for rows, unit_of_row, count in learner.micro_batches(units):
        found = UnitGradients.of(
            learner.trainable,
            learner.segments(rows, unit_of_row, count),
            lambda rows=rows: learner.losses(rows),  # type: ignore[misc]
        )
        total = total + found.clipped_sum(clipping)
    return total


def plain_gradient_sum(learner: Learner, units: Units) -> Tensor:
    """Return the sum over units of each unit's mean gradient, unclipped: the reference without privacy."""
    weights = list(learner.trainable.parameters().values())
    total_P = torch.zeros_like(learner.trainable.flat())
    for rows, unit_of_row, count in learner.micro_batches(units):
        rows_U = np.bincount(unit_of_row, minlength=count)
        weight_R = torch.from_numpy(1.0 / rows_U[unit_of_row]).to(learner.device, total_P.dtype)
        gradients = torch.autograd.grad((learner.losses(rows) * weight_R).sum(), weights)
        total_P += torch.cat([gradient.flatten() for gradient in gradients])
    return total_P


def micro_batches(
    units: Units, length_of_row: NDArray[np.int64], most_rows: int, most_tokens: int
) -> Iterator[tuple[list[int], NDArray[np.int64], int]]:
    """Cut units, never a unit, into groups of at most so many rows and padded tokens.

    A unit that is larger alone goes alone. Yields the rows of a group, the unit of each (from 0), and the
    number of units.
    """
    group: list[NDArray[np.int64]] = []
    rows, longest = 0, 0
    for unit in units:
        length = max(longest, int(length_of_row[unit].max()))
        if group and (rows + len(unit) > most_rows or (rows + len(unit)) * length > most_tokens):
            yield _group(group)
            group, rows, length = [], 0, int(length_of_row[unit].max())
        group.append(unit)
        rows, longest = rows + len(unit), length
    if group:
        yield _group(group)


def _group(group: list[NDArray[np.int64]]) -> tuple[list[int], NDArray[np.int64], int]:
    unit_of_row = np.repeat(np.arange(len(group)), [len(rows) for rows in group])
    return np.concatenate(group).tolist(), unit_of_row, len(group)
