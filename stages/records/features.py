"""The visual features of many images, each with as many slots as it kept.

Shapes: I images, S slots of one image, F slots of all images of one part, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Features by image, cut from a few large tensors, which may lie on disk (memory-mapped) or in memory."""

    parts_FD: tuple[Tensor, ...]
    part_I: NDArray[np.int64]
    """The part in which each image's features lie."""
    start_I: NDArray[np.int64]
    """Where in its part each image starts."""
    slots_I: NDArray[np.int64]
    """How many slots each image has."""

    def __post_init__(self) -> None:
        """Refuse images that lie outside their part."""
        length = np.array([len(part_FD) for part_FD in self.parts_FD], dtype=np.int64)
        if len(self.part_I) and not (
            self.part_I.min() >= 0
            and self.start_I.min() >= 0
            and self.slots_I.min() >= 0
            and self.part_I.max() < len(length)
            and (self.start_I + self.slots_I <= length[self.part_I]).all()
        ):
            raise ValueError("features and slots do not match: run `dvc repro -f encode`")

    @classmethod
    def of(cls, features: Sequence[Tensor]) -> "Features":
        """Return features that lie in memory, one (S, D) tensor an image."""
        slots_I = np.array([len(feature_SD) for feature_SD in features], dtype=np.int64)
        return cls.in_order((torch.cat(list(features)),) if len(features) else (), slots_I)

    @classmethod
    def in_order(cls, parts_FD: Sequence[Tensor], slots_I: NDArray[np.int64]) -> "Features":
        """Return images that follow each other through the parts and fill them; else a ValueError."""
        ends = np.cumsum([len(part_FD) for part_FD in parts_FD], dtype=np.int64)
        begin_I = np.cumsum(slots_I) - slots_I
        part_I = np.searchsorted(ends, begin_I, side="right").astype(np.int64)
        if slots_I.sum() != (ends[-1] if len(ends) else 0):
            raise ValueError("features and slots do not match: run `dvc repro -f encode`")
        return cls(tuple(parts_FD), part_I, begin_I - np.array([0, *ends])[part_I], slots_I)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.slots_I)

    def __getitem__(self, image: int) -> Tensor:
        """Return one image's features, shape (S, D): a view, read from disk when it is used."""
        start = int(self.start_I[image])
        return self.parts_FD[int(self.part_I[image])][start : start + int(self.slots_I[image])]

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
        return Features(
            (*self.parts_FD, *others.parts_FD),
            np.concatenate([self.part_I, others.part_I + len(self.parts_FD)]),
            np.concatenate([self.start_I, others.start_I]),
            np.concatenate([self.slots_I, others.slots_I]),
        )
