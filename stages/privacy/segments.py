"""Which unit each entry of a batch belongs to, on every axis that a trainable layer may see first.

A language model sees rows first; a projector or a vision tower may see images, tiles, or patches packed
without a batch axis. Attribution goes by these maps and never by the position of an axis.

Shapes: n entries of an axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from stages.privacy.trainable_layers import ROW


@dataclass(frozen=True)
class Axis:
    """The units of the entries of one axis, in order: unit u owns ``counts[u]`` consecutive entries."""

    counts: tuple[int, ...]

    @classmethod
    def of(cls, unit_of: ArrayLike, units: int) -> "Axis":
        """Read a map from entries to units 0 .. units - 1; the entries of a unit must lie together."""
        entries = torch.from_numpy(np.asarray(unit_of, dtype=np.int64))
        if entries.numel() and (int(entries.min()) < 0 or int(entries.max()) >= units):
            raise ValueError(f"entries belong to units {entries.tolist()}, of which there are {units}")
        if bool((entries[1:] < entries[:-1]).any()):
            raise ValueError("the entries of a unit must lie together, in the order of the units")
        return cls(tuple(torch.bincount(entries, minlength=units).tolist()))

    @property
    def entries(self) -> int:
        """Return n."""
        return sum(self.counts)

    def even(self) -> int | None:
        """Return how many entries every unit has, where all have as many, else None."""
        first = self.counts[0] if self.counts else 0
        return first if first and all(count == first for count in self.counts) else None

    def most(self) -> int:
        """Return how many entries the unit with most has."""
        return max(self.counts, default=0)


@dataclass(frozen=True)
class Segments:
    """Every axis of one batch. All maps speak of the same units."""

    units: int
    axes: Mapping[str, Axis]

    @classmethod
    def of(cls, units: int, **unit_of: ArrayLike) -> "Segments":
        """Build from maps, such as ``row=[0, 0, 1]`` and ``image=[0, 1, 1]``; every unit needs a row.

        >>> Segments.of(2, row=[0, 0, 1], image=[1, 1]).axes["image"].counts
        (0, 2)
        """
        axes = {name: Axis.of(entries, units) for name, entries in unit_of.items()}
        if ROW not in axes or any(count == 0 for count in axes[ROW].counts):
            raise ValueError(f"each of the {units} units must have a row in the batch, and all of them")
        return cls(units, axes)

    def axis(self, name: str, layer: str) -> Axis:
        """Return an axis that ``layer`` asks for."""
        if name not in self.axes:
            raise ValueError(f"{layer} counts by {name}, which this batch says nothing of")
        return self.axes[name]

    def row_weights(self, like: Tensor) -> Tensor:
        """Return 1 / (rows of its unit) for every row, shape (R,): weighted so, losses average by unit."""
        counts = torch.tensor(self.axes[ROW].counts)
        return counts.double().reciprocal().repeat_interleave(counts).to(like.device, like.dtype)
