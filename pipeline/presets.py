"""Presets: what ``params.yaml`` should say for a real model on real GPUs, and what was predicted of it.

A preset is ``presets/NAME.yaml``: the model and the rows that its memory is predicted for, the GPUs, and
under ``params`` the values that it sets. Imports nothing heavy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.schema import Section, parse

PRESETS = Path("presets")
GRID = PRESETS / "compare.yaml"
"""What ``dualpriv compare`` runs: no preset."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a long row is made of, in tokens."""

    visual_tokens: int
    text_tokens: int
    """Of question, template and answer."""
    answer_tokens: int
    """Of these, those that are learned."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What ``dualpriv memory --preset NAME`` says, kept here to be read; a test compares it."""

    peak_gib: float
    """Of a step on the largest micro-batch."""
    micro_batch: int


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One file of ``presets/``."""

    about: str
    config: Path
    """The model's config.json; shapes alone are read of it."""
    gpu: str
    gpus: int
    rows: Rows
    predicted: Predicted
    params: dict[str, Any]
    """Sections and keys of params.yaml, with the values that they get."""


def names() -> list[str]:
    """Return the presets there are."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if path != GRID)


def read_preset(name: str) -> Preset:
    """Return a preset; one that is missing or broken is a ValueError that says so."""
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"there is no preset '{name}'; there are: {', '.join(names()) or 'none here'}")
    return read_as(Preset, path)


def read_as(schema: type[Section], path: Path) -> Section:
    """Return a YAML file as a frozen dataclass; one that is no such thing is an error that names it."""
    try:
        said = YAML(typ="safe", pure=True).load(path)
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return parse(said, schema, str(path))


def merge(params: Any, changes: dict[str, Any], where: str) -> None:
    """Set the values of ``changes`` in ``params``, in place; a key that is not there is a KeyError.

    Values that are mappings are merged, all others replaced; comments of a round-trip document stay.
    """
    for keys, value in leaves(changes):
        held = params
        for depth, key in enumerate(keys):
            if not isinstance(held, dict) or key not in held:
                name = ".".join(keys[: depth + 1])
                raise KeyError(f"{where} sets '{name}', which params.yaml does not have")
            if depth + 1 < len(keys):
                held = held[key]
        held[keys[-1]] = value


def leaves(changes: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value that is no mapping, and the keys that lead to it."""
    for key, value in changes.items():
        if isinstance(value, dict):
            yield from leaves(value, (*before, key))
        else:
            yield (*before, key), value
