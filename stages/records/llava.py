"""Read LLaVA's JSON: a list of ``{id, image, conversations: [{from, value}]}`` beside a folder of images."""

from collections.abc import Iterator
from pathlib import Path

from stages.records import conversation
from stages.records.conversation import Conversation
from stages.records.fields import Record, checked_text
from stages.records.json_text import parse_json, read_text
from stages.records.picture import read_picture_file
from stages.records.row import Message, Role

ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}


def records(file: Path) -> Iterator[Record]:
    """Yield the records of a LLaVA file; a broken file is a ValueError that names it and the line."""
    value = parse_json(read_text(file), f"{file}")
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise ValueError(f"{file} is not one JSON list of objects: write it as LLaVA does or set format")
    yield from value


def read(record: Record, folder: Path | None) -> Conversation:
    """Return the conversation of one record; ``<image>`` marks stand where the record wrote them."""
    turns = tuple(_turn(turn) for turn in conversation.turns_of(record, "conversations"))
    named = record.get("image")
    names = [] if named is None or named == "" else named if isinstance(named, list) else [named]
    return Conversation(turns, tuple(read_picture_file(folder, name) for name in names))


def _turn(turn: dict[str, object]) -> Message:
    return conversation.message(turn.get("from"), checked_text(turn.get("value"), "value"), ROLES)
