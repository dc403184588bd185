"""The visual features of many images, each with as many slots as it kept.

Shapes: I images, S slots of one image, F slots of all images of one part, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Features by image, cut from a few large tensors, which may lie on disk (memory-mapped) or in memory."""

    parts_FD: tuple[Tensor, ...]
    slots_I: NDArray[np.int64]
    """How many slots each image has, images in the order of the parts; no image lies in two parts."""

    def __post_init__(self) -> None:
        """Refuse parts that do not end where an image ends."""
        total = sum(len(part_FD) for part_FD in self.parts_FD)
        borders = [*self._starts_I.tolist(), total]
        if total != self.slots_I.sum() or not np.isin(self._starts, borders).all():
            raise ValueError("features and slots do not match: run `dvc repro -f encode`")

    @classmethod
    def of(cls, features: Sequence[Tensor]) -> "Features":
        """Return features that lie in memory, one (S, D) tensor an image."""
        slots_I = np.array([len(feature_SD) for feature_SD in features], dtype=np.int64)
        return cls((torch.cat(list(features)),) if len(features) else (), slots_I)

    @cached_property
    def _starts_I(self) -> NDArray[np.int64]:
        """Where each image starts among the slots of all."""
        starts_I: NDArray[np.int64] = np.cumsum(self.slots_I) - self.slots_I
        return starts_I

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where each part starts among the slots of all."""
        lengths = np.array([len(part_FD) for part_FD in self.parts_FD], dtype=np.int64)
        starts: NDArray[np.int64] = np.cumsum(lengths) - lengths
        return starts

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.slots_I)

    def __getitem__(self, image: int) -> Tensor:
        """Return one image's features, shape (S, D): a view, read from disk when it is used."""
        start = int(self._starts_I[image])
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        first = start - int(self._starts[part])
        return self.parts_FD[part][first : first + int(self.slots_I[image])]

    def __iter__(self) -> Iterator[Tensor]:
        """Go through the images in order."""
        return (self[image] for image in range(len(self)))

    @property
    def width(self) -> int:
        """Width of a feature; 0 where there is no image."""
        return int(self.parts_FD[0].shape[1]) if self.parts_FD else 0

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the features."""
        return self.parts_FD[0].dtype if self.parts_FD else torch.float32

    def followed_by(self, others: "Features") -> "Features":
        """Return these images and behind them the others."""
        return Features((*self.parts_FD, *others.parts_FD), np.concatenate([self.slots_I, others.slots_I]))
