"""The record of every stage before encoding: a conversation about some images, owned by one privacy unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IMAGE = "<image>"
"""Marks, inside a message, the place of the row's next image."""

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "heldout"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Row:
    """One training or evaluation example.

    ``messages`` hold as many ``IMAGE`` marks as ``images`` has entries; every assistant turn is learned.
    """

    id: str
    unit: str
    """The privacy unit that owns this row: an image, a patient, a user."""
    kind: str
    """The kind of question, by which accuracy is reported."""
    messages: tuple[Message, ...]
    images: tuple[bytes, ...]
    """Encoded image files (PNG, JPEG, WEBP, BMP, GIF), decoded and checked when they were read."""


@dataclass(frozen=True)
class SourcedRow:
    """A row as its source gave it, with the split that the source names for it, if it names one."""

    row: Row
    split: Split | None


def rows_by_unit(rows: Sequence[Row]) -> list[NDArray[np.int64]]:
    """Return the indices of each unit's rows, units as they first appear."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(row.unit, []).append(index)
    return [np.array(indices, dtype=np.int64) for indices in found.values()]
