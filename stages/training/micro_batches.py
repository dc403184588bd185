"""Cut the sampled units of a step into groups that fit a machine: by rows, by tokens, by memory.

Guarantee: how a logical batch is cut changes its sum by rounding only; a unit is never cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Units = Sequence[NDArray[np.int64]]
"""The rows of each sampled unit."""


@dataclass(frozen=True)
class MicroBatch:
    """Whole units that go through the model together."""

    rows: list[int]
    unit_of_row: NDArray[np.int64]
    """Counted from 0."""
    units: int


@dataclass(frozen=True)
class MemoryUse:
    """Bytes that a micro-batch needs above the weights, as a function of its rows and its longest row."""

    fixed: float
    per_row: float
    per_token: float
    """Of padded tokens: rows times the longest."""

    def bytes(self, rows: int, longest: int) -> float:
        """Return the most bytes alive at once."""
        return self.fixed + rows * (self.per_row + longest * self.per_token)


@dataclass(frozen=True)
class Bounds:
    """How much goes through the model at once."""

    rows: int
    tokens: int
    memory: MemoryUse | None = None
    memory_limit: float = 0.0
    """Bytes; unused without ``memory``."""

    def fits(self, rows: int, longest: int) -> bool:
        """Tell whether so many rows, padded to the longest, stay within every bound."""
        if rows > self.rows or rows * longest > self.tokens:
            return False
        return self.memory is None or self.memory.bytes(rows, longest) <= self.memory_limit


def micro_batches(units: Units, length_of_row: NDArray[np.int64], bounds: Bounds) -> Iterator[MicroBatch]:
    """Yield the units in groups within ``bounds``; a unit that is larger alone goes alone."""
    group: list[NDArray[np.int64]] = []
    rows, longest = 0, 0
    for unit in units:
        length = max(longest, int(length_of_row[unit].max()))
        if group and not bounds.fits(rows + len(unit), length):
            yield _group(group)
            group, rows, length = [], 0, int(length_of_row[unit].max())
        group.append(unit)
        rows, longest = rows + len(unit), length
    if group:
        yield _group(group)


def _group(group: list[NDArray[np.int64]]) -> MicroBatch:
    unit_of_row = np.repeat(np.arange(len(group)), [len(rows) for rows in group])
    return MicroBatch(np.concatenate(group).tolist(), unit_of_row, len(group))
