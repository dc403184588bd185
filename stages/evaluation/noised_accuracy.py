"""Accuracy by kind of question from one noised vector of counts.

Shapes: U units, K kinds of question, a unit contributes 3 K counts: rows, then exact answers of either model.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.core.progress import PARTS, progress, told_in_parts
from stages.evaluation.settings import EVERYTHING, OTHER
from stages.records.encoded import EncodedSet, collate

_Z = 1.959963984540054


@dataclass(frozen=True)
class NoisedAccuracy:
    """Counts whose Gaussian noise has standard deviation ``deviation``, independent of each other."""

    correct: float
    rows: float
    deviation: float

    def to_json(self) -> dict[str, Any]:
        """Return noised counts, accuracy (none without rows) and an interval of sampling and noise."""
        low, high = noised_interval(self.correct, self.rows, self.deviation)
        accuracy = min(1.0, max(0.0, self.correct / self.rows)) if self.rows > 0 else None
        return {"correct": self.correct, "rows": self.rows, "accuracy": accuracy, "low": low, "high": high}


def noised_interval(correct: float, rows: float, deviation: float) -> tuple[float, float]:
    """Return a 95 % interval of a proportion from two noised counts.

    The score interval of Wilson 1927 with the noise added to its variance (Fieller 1954 for a ratio): all p
    with (correct - p rows)^2 <= z^2 (rows p (1 - p) + deviation^2 (1 + p^2)). Without noise it is Wilson's.

    Edge cases: rows that noise alone may have made, and counts that no proportion explains, give (0, 1).

    >>> low, high = noised_interval(50, 100, 0.0)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    if rows <= 0:
        return 0.0, 1.0
    z2, noise = _Z * _Z, deviation * deviation
    square = rows * rows + z2 * rows - z2 * noise
    linear = 2 * correct * rows + z2 * rows
    constant = correct * correct - z2 * noise
    discriminant = linear * linear - 4 * square * constant
    if square <= 0 or discriminant < 0:
        return 0.0, 1.0
    root = math.sqrt(discriminant)
    low, high = (linear - root) / (2 * square), (linear + root) / (2 * square)
    return (max(0.0, low), min(1.0, high)) if low <= 1 and high >= 0 else (0.0, 1.0)


def answered_alone(
    label: str,
    model: torch.nn.Module,
    family: Any,
    encoded: EncodedSet,
    units: Sequence[NDArray[np.int64]],
    micro_batch: int,
) -> list[list[bool]]:
    """Return for each row of each unit whether greedy decoding would answer it exactly.

    Guarantee: a unit's answers are a function of that unit's own rows, bit for bit, whatever the other units
    are: its rows go through the frozen model alone.
    """
    device = next(model.parameters()).device
    found: list[list[bool]] = [[] for _ in units]
    with progress(label, PARTS) as advance:
        for unit in told_in_parts(len(units), advance):
            for rows in _micro_batches(units[unit], micro_batch):
                found[unit] += family.rows_answered(model, collate(encoded, rows).to(device)).tolist()
    return found


def counts_by_unit(
    encoded: EncodedSet,
    units: Sequence[NDArray[np.int64]],
    answered: Sequence[Sequence[Sequence[bool]]],
    kinds: Sequence[str],
) -> Tensor:
    """Return what each unit contributes, shape (U, (1 + models) K) in float64.

    ``answered`` holds for each model what ``answered_alone`` returned. A row whose kind is not among
    ``kinds`` counts as the last of them.
    """
    place = {kind: index for index, kind in enumerate(kinds)}
    counts_UCK = torch.zeros(len(units), 1 + len(answered), len(kinds), dtype=torch.float64)
    for unit, rows in enumerate(units):
        for index, row in enumerate(rows):
            kind = place.get(encoded.kinds[encoded.rows[row].kind], len(kinds) - 1)
            counts_UCK[unit, 0, kind] += 1
            for model, found in enumerate(answered, 1):
                counts_UCK[unit, model, kind] += bool(found[unit][index])
    return counts_UCK.flatten(1)


def counted_kinds(declared: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds that are counted: the declared ones and, last, one for all others.

    >>> counted_kinds(["digit"]), counted_kinds([])
    (('digit', 'other'), ('all',))
    """
    return (*declared, OTHER) if declared else (EVERYTHING,)


def noised_accuracy_by_kind(
    noised: Tensor, kinds: Sequence[str], deviation: float
) -> Iterator[dict[str, NoisedAccuracy]]:
    """Yield, for each model, accuracy by kind from the noised sum of ``counts_by_unit``.

    Post-processing. ``all`` adds K kinds up, so its noise has standard deviation sqrt(K) ``deviation``.
    """
    rows_K, *correct_MK = noised.reshape(-1, len(kinds)).tolist()
    for correct_K in correct_MK:
        found = {
            kind: NoisedAccuracy(correct, rows, deviation)
            for kind, correct, rows in zip(kinds, correct_K, rows_K, strict=True)
        }
        whole = NoisedAccuracy(sum(correct_K), sum(rows_K), deviation * math.sqrt(len(kinds)))
        yield {**found, EVERYTHING: whole}


def _micro_batches(rows: NDArray[np.int64], micro_batch: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), micro_batch):
        yield rows[start : start + micro_batch].tolist()
