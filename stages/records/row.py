"""The record of every stage before encoding: a conversation about some images, owned by one privacy unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.records.unit_rows import UnitRows

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


Shown = tuple[Row, tuple[int, ...]]
"""A row and, among the distinct images of its set, the indices of those that it shows."""


@dataclass(frozen=True)
class SourcedRow:
    """A row as its source gave it, with the split that the source names for it, if it names one."""

    row: Row
    split: Split | None


def rows_by_unit(rows: Sequence[Row]) -> UnitRows:
    """Return the indices of each unit's rows, units as they first appear."""
    number: dict[str, int] = {}
    return UnitRows(np.array([number.setdefault(row.unit, len(number)) for row in rows], dtype=np.int64))
