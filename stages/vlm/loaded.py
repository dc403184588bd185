"""A frozen model, its processor and its family, together."""

from dataclasses import dataclass
from typing import Any

from stages.vlm.families.base import Family


@dataclass(frozen=True)
class Loaded:
    """A frozen model in evaluation mode, its processor, and what knows its family."""

    model: Any
    processor: Any
    family: Family
