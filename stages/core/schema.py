"""Turn plain mappings into frozen dataclasses: nothing missing, nothing unknown, nothing mistyped."""

import dataclasses
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

Section = TypeVar("Section")


def parse(value: Any, schema: type[Section], where: str) -> Section:
    """Return ``value`` as the frozen dataclass ``schema``, or raise an error that starts with ``where``.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Update:
    ...     keep: float
    >>> parse({"keep": 1}, Update, "params.yaml: section 'update'")
    Update(keep=1.0)
    >>> parse({"kept": 1}, Update, "params.yaml: section 'update'")
    Traceback (most recent call last):
    KeyError: "params.yaml: section 'update' has unknown keys ['kept']; known: ['keep']"
    """
    if not isinstance(value, dict):
        raise TypeError(f"{where} must be a mapping, got {value!r}")
    hints = _hints(schema)  # type: ignore[arg-type]
    names = [field.name for field in dataclasses.fields(schema)]  # type: ignore[arg-type]
    unknown, missing = sorted(set(map(str, value)) - set(names)), sorted(set(names) - set(value))
    if unknown:
        raise KeyError(f"{where} has unknown keys {unknown}; known: {sorted(names)}")
    if missing:
        raise KeyError(f"{where} lacks keys {missing}; known: {sorted(names)}")
    return schema(**{name: convert(value[name], hints[name], f"{where}, key '{name}'") for name in names})


@cache
def _hints(schema: Any) -> dict[str, Any]:
    return typing.get_type_hints(schema)


def convert(value: Any, hint: Any, where: str) -> Any:
    """Return ``value`` as the type that ``hint`` names, or raise an error that starts with ``where``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return parse(value, hint, where)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in arguments or isinstance(value, bool) != isinstance(arguments[0], bool):
            raise ValueError(f"{where} must be one of {list(arguments)}, got {value!r}")
        return value
    if origin in (types.UnionType, typing.Union) and type(None) in arguments:
        if value is None:
            return None
        return convert(value, next(kind for kind in arguments if kind is not type(None)), where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{where} must be a list, got {value!r}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise TypeError(f"{where} must hold {len(kinds)} values, got {value!r}")
        return tuple(convert(item, kind, where) for item, kind in zip(value, kinds, strict=True))
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise TypeError(f"{where} must be of type {getattr(hint, '__name__', hint)}, got {value!r}")
