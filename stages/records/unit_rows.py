"""Which rows belong to which privacy unit."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


class UnitRows(Sequence[Integers]):
    """The indices of each unit's rows, in the order of the rows; unit u is the u-th smallest index given."""

    def __init__(self, unit_R: Integers) -> None:
        """Sort the rows by unit; ``unit_R`` is the unit of each row."""
        self._order_R = np.argsort(unit_R, kind="stable")
        changes = np.flatnonzero(np.diff(unit_R[self._order_R])) + 1
        self._bounds = np.concatenate([[0], changes, [len(unit_R)]]) if len(unit_R) else np.zeros(1, np.int64)

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> Integers: ...

    @overload
    def __getitem__(self, index: slice) -> list[Integers]: ...

    def __getitem__(self, index: int | slice) -> Integers | list[Integers]:
        """Return the rows of one unit, or of some."""
        if isinstance(index, slice):
            return [self[unit] for unit in range(*index.indices(len(self)))]
        index = index + len(self) if index < 0 else index
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._order_R[self._bounds[index] : self._bounds[index + 1]]
