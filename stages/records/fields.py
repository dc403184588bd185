"""The facts beside a conversation: a record's id, its privacy unit, its kind and its split."""

from collections.abc import Mapping

from stages.records.refusal import Unusable, quote
from stages.records.row import Split

Record = Mapping[str, object]
"""One record as its file holds it, before anything is checked."""

ONE_KIND = "all"
"""The kind of every row of a source that names no kind."""

_SPLITS: dict[object, Split] = {"train": "train", "heldout": "heldout"}


def record_id(record: Record, position: int) -> str:
    """Return the record's own ``id``, or its one-based position where it has none.

    >>> record_id({"id": 7}, 1), record_id({}, 17)
    ('7', 'row 17')
    """
    return f"row {position}" if record.get("id") is None else _name(record["id"], "id")


def unit_of(record: Record, field: str) -> str:
    """Return the one privacy unit that owns ``record``; blanks around it do not make another unit.

    Edge cases: a list of one entry is that entry; a longer list is a row of several units, which no
    accountant can charge.
    """
    value = record.get(field)
    if isinstance(value, list):
        if len(value) > 1:
            raise Unusable(
                f"'{field}' names {len(value)} privacy units", "split the record, or name what holds them all"
            )
        value = value[0] if value else None
    if value is None:
        raise Unusable(f"no privacy unit in '{field}'", "fill it in, or name another field as unit")
    return _name(value, field)


def kind_of(record: Record, field: str | None) -> str:
    """Return the record's kind of question."""
    if field is None:
        return ONE_KIND
    if record.get(field) is None:
        raise Unusable(f"no kind in '{field}'", "fill it in, or set kind to null")
    kind = _name(record[field], field)
    if kind == ONE_KIND:
        raise Unusable(f"'{field}' is '{ONE_KIND}', the name of the total", "name the kind otherwise")
    return kind


def declared_split(record: Record, field: str | None) -> Split | None:
    """Return the split that the record names; None where the unit's keyed hash decides."""
    if field is None:
        return None
    value = record.get(field)
    if not isinstance(value, str) or value not in _SPLITS:
        raise Unusable(f"split {quote(value)} is unknown", "write 'train' or 'heldout', or set split to null")
    return _SPLITS[value]


def checked_text(value: object, what: str) -> str:
    """Return ``value`` if it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise Unusable(f"{what} is of type {type(value).__name__}", "make it text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unusable(f"{what} holds half a surrogate pair", "save the file as UTF-8") from None
    return value


def _name(value: object, field: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = checked_text(value, f"'{field}'").strip()
    if not text:
        raise Unusable(f"'{field}' is empty", "fill it in")
    return text
