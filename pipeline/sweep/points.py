"""The points of a sweep: every combination of the values that a file gives to keys of ``params.yaml``."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pipeline.compare.experiments import named, spelled
from pipeline.presets import merge, read_as

LARGEST = 1000
Combination = tuple[Mapping[str, Any], Mapping[str, Any]]
"""What a grid sets, by dotted key, and the whole of params.yaml with it."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What the file says."""

    grid: dict[str, Any]
    """Dotted keys of params.yaml, and the values that each takes."""

    def __post_init__(self) -> None:
        """Refuse keys without values, and grids that nobody means."""
        size = 1
        for key, values in self.grid.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"grid: '{key}' needs a list of values to try, got {values!r}")
            size *= len(values)
        if not self.grid or size > LARGEST:
            raise ValueError(f"grid: a sweep has 1 to {LARGEST} points, got {size if self.grid else 0}")


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    name: str
    """By which DVC keeps the experiment; made of all that decides it."""
    values: Mapping[str, Any]
    """What the grid sets, by dotted key."""
    changes: Mapping[str, str]
    """The same as DVC's ``--set-param`` reads it."""
    params: Mapping[str, Any]
    """The whole of params.yaml."""


def combinations(path: Path, base: Mapping[str, Any]) -> list[Combination]:
    """Return every combination of the sweep in ``path``, the last key changing fastest.

    Errors: a file that is missing or broken, and a key that params.yaml does not have.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: name a file that says `grid:` and lists values by key")
    grid = read_as(Grid, path).grid
    found: list[Combination] = []
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        params = deepcopy(dict(base))
        for key, value in chosen.items():
            change: Any = value
            for part in reversed(key.split(".")):
                change = {part: change}
            merge(params, change, str(path))
        found.append((chosen, params))
    return found


def points_of(every: Sequence[Combination], inputs: Callable[[Mapping[str, Any]], str]) -> list[Point]:
    """Return a point for each combination; it spells every key of the grid, and inherits nothing.

    ``inputs`` names the code and the records of a run that has these parameters.
    """
    return [
        Point(
            named("sweep", params, inputs(params)),
            values,
            {key: spelled(value) for key, value in values.items()},
            params,
        )
        for values, params in every
    ]
