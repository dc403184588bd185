"""Read JSON whose author is unknown: one meaning for every reader, or a refusal."""

import json
from typing import Any, NoReturn

from stages.core.canonical import canonical_json

LARGEST = 1 << 28
"""Bytes of the largest file that is read: a trace of 900,000 steps."""
DEEPEST = 40
_DIGITS = 16
"""An integer of more digits is not the same number for a reader that uses doubles."""


def strict_json(content: bytes, where: str) -> Any:
    r"""Return the JSON value in ``content``, or a ValueError that starts with ``where``.

    Refused: what is no JSON, a key twice, NaN and infinity, integers of more than 16 digits, text that no
    Unicode file can hold, deep nesting, files that are huge, and every spelling but our own canonical one.

    >>> strict_json(b'{\n  "a": 1\n}\n', "x.json")
    {'a': 1}
    >>> strict_json(b'{"a": 1, "a": 2}', "x.json")
    Traceback (most recent call last):
    ValueError: x.json holds the key 'a' twice
    """
    if len(content) > LARGEST:
        raise ValueError(f"{where} is larger than {LARGEST} bytes")
    try:
        value = json.loads(
            content.decode(),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
        _require_shallow(value)
        value_spelled = canonical_json(value)
        json.dumps(value, ensure_ascii=False).encode()
    except _Refused as refused:
        raise ValueError(f"{where} {refused}") from None
    except RecursionError:
        raise ValueError(f"{where} is nested too deeply") from None
    except UnicodeError:
        raise ValueError(f"{where} holds text that is not Unicode") from None
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from None
    if value_spelled != content:
        raise ValueError(f"{where} is not spelled as dualpriv spells JSON: its bytes are not what it says")
    return value


def _require_shallow(value: Any) -> None:
    """Refuse nesting over ``DEEPEST``: what walks through a value does so by recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [one for items in inner for one in items if isinstance(one, dict | list)]
        if not level:
            return
    raise _Refused("is nested too deeply")


class _Refused(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"holds the key {key!a} twice")
        found[key] = value
    return found


def _constant(text: str) -> NoReturn:
    raise _Refused(f"holds {text}, which is no number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Refused(f"holds a number that is too large: {text[:20]}")
    return value


def _int(text: str) -> int:
    if len(text.lstrip("-")) > _DIGITS:
        raise _Refused(f"holds an integer of {len(text.lstrip('-'))} digits")
    return int(text)
