"""Token rows as flat arrays, cut by their ends: in memory, or memory-mapped from files of bounded size.

Shapes: R rows and T tokens of a part, A axes of a position (1; 3 for models with M-RoPE).
"""

import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save

from stages.core.disk_errors import system_errors
from stages.core.files import PARTIAL

IGNORED = -100
TOKENS_PER_PART = 2**20

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class TokenRow:
    """One row as the language model reads it: slots pruned, positions of the unpruned sequence."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """The token to predict *at* each place (not shifted), IGNORED where nothing is learned."""
    position_ids: tuple[tuple[int, ...], ...]
    """Along each axis, A of them, the position of every token."""
    images: tuple[int, ...]
    """Indices into the set's features, in the order of the row's slots."""
    unit: int
    kind: int


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows that follow each other, at least one; row r's tokens end where ``end_R[r]`` says."""

    input_ids_T: Integers
    labels_T: Integers
    position_ids_AT: Integers
    end_R: Integers
    images: Integers
    """Of all rows, flat."""
    image_end_R: Integers
    unit_R: Integers
    kind_R: Integers

    @classmethod
    def of(cls, rows: Sequence[TokenRow]) -> "Part":
        """Return rows as flat arrays."""
        axes = len(rows[0].position_ids)
        return cls(
            _flat(row.input_ids for row in rows),
            _flat(row.labels for row in rows),
            np.stack([_flat(row.position_ids[axis] for row in rows) for axis in range(axes)]),
            _flat([accumulate(len(row.input_ids) for row in rows)]),
            _flat(row.images for row in rows),
            _flat([accumulate(len(row.images) for row in rows)]),
            _flat([[row.unit for row in rows]]),
            _flat([[row.kind for row in rows]]),
        )

    @classmethod
    def read(cls, path: Path) -> "Part":
        """Map a file of what ``as_file`` gave; it may be removed then. A broken one: SafetensorError."""
        with safe_open(path, framework="pt") as file:
            return cls(**{name: file.get_tensor(name).numpy() for name in cls.__dataclass_fields__})

    def as_file(self) -> bytes:
        """Return the arrays as the content of a safetensors file."""
        arrays = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in vars(self).items()}
        return bytes(save(arrays))

    def row(self, index: int) -> TokenRow:
        """Return one row."""
        tokens, images = _between(self.end_R, index), _between(self.image_end_R, index)
        return TokenRow(
            tuple(self.input_ids_T[tokens].tolist()),
            tuple(self.labels_T[tokens].tolist()),
            tuple(tuple(axis.tolist()) for axis in self.position_ids_AT[:, tokens]),
            tuple(self.images[images].tolist()),
            int(self.unit_R[index]),
            int(self.kind_R[index]),
        )


@dataclass(frozen=True, eq=False)
class TokenRows(Sequence[TokenRow]):
    """The rows of a set; each is made when it is asked for."""

    parts: tuple[Part, ...]
    _ends: list[int] = field(init=False)

    def __post_init__(self) -> None:
        """Count the rows of each part."""
        object.__setattr__(self, "_ends", [*accumulate(len(part.end_R) for part in self.parts)])

    @classmethod
    def of(cls, rows: Iterable[TokenRow]) -> "TokenRows":
        """Return rows that lie in memory."""
        return cls(tuple(_parts(rows)))

    @classmethod
    def on_disk(cls, rows: Iterable[TokenRow], folder: Path) -> "TokenRows":
        """Return rows that lie in files of ``folder``, which have no name there and go with this object."""
        parts = []
        with system_errors(folder):
            for part in _parts(rows):
                with tempfile.NamedTemporaryFile(dir=folder, prefix=".rows-", suffix=PARTIAL) as file:
                    file.write(part.as_file())
                    file.flush()
                    parts.append(Part.read(Path(file.name)))
        return cls(tuple(parts))

    @classmethod
    def read(cls, folder: Path) -> "TokenRows":
        """Map the rows that ``write`` wrote."""
        return cls(tuple(Part.read(path) for path in sorted(folder.glob("rows-*.safetensors"))))

    def write(self, folder: Path) -> None:
        """Write the rows to files of ``folder``."""
        for number, part in enumerate(self.parts):
            (folder / f"rows-{number:05d}.safetensors").write_bytes(part.as_file())

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...

    @overload
    def __getitem__(self, index: slice) -> "TokenRows": ...

    def __getitem__(self, index: "int | slice") -> "TokenRow | TokenRows":
        """Return one row, or some, those in memory."""
        if isinstance(index, slice):
            return TokenRows.of(self[row] for row in range(*index.indices(len(self))))
        index = index + len(self) if index < 0 else index
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return self.parts[number].row(index - (self._ends[number - 1] if number else 0))

    @property
    def axes(self) -> int:
        """Return A, the axes of a position."""
        return len(self.parts[0].position_ids_AT) if self.parts else 1

    def lengths(self) -> Integers:
        """Return how many tokens each row has, shape (R,)."""
        return self._joined(lambda part: np.diff(part.end_R, prepend=0))

    def units(self) -> Integers:
        """Return the unit of each row, shape (R,)."""
        return self._joined(lambda part: part.unit_R)

    def occurrences(self, token: int) -> Integers:
        """Return how often each row holds a token, shape (R,)."""
        return self._joined(lambda part: _sums(part.input_ids_T == token, part.end_R))

    def learned(self) -> Integers:
        """Return how many tokens of each row are learned, shape (R,)."""
        return self._joined(lambda part: _sums(part.labels_T != IGNORED, part.end_R))

    def slots(self, slots_I: Integers) -> Integers:
        """Return how many slots the images of each row have together, shape (R,)."""
        return self._joined(lambda part: _sums(slots_I[part.images], part.image_end_R))

    def _joined(self, of: Callable[[Part], Integers]) -> Integers:
        return np.concatenate([np.zeros(0, dtype=np.int64), *map(of, self.parts)])


def _parts(rows: Iterable[TokenRow]) -> Iterator[Part]:
    """Yield rows together until they have ``TOKENS_PER_PART`` tokens."""
    held, tokens = [], 0
    for row in rows:
        held.append(row)
        tokens += len(row.input_ids)
        if tokens >= TOKENS_PER_PART:
            yield Part.of(held)
            held, tokens = [], 0
    if held:
        yield Part.of(held)


def _flat(values: Iterable[Iterable[int]]) -> Integers:
    found = array("q")
    for part in values:
        found.extend(part)
    return np.array(found, dtype=np.int64)


def _between(end_R: Integers, index: int) -> slice:
    return slice(int(end_R[index - 1]) if index else 0, int(end_R[index]))


def _sums(values: NDArray[np.generic], end_R: Integers) -> Integers:
    """Return the sum of the values of each row."""
    upto = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.diff(upto[end_R], prepend=0)
