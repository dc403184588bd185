"""Read OpenAI's chat JSONL: one ``{"messages": [{role, content}]}`` a line, images in ``data:`` URLs."""

import base64
import binascii
import re
from collections.abc import Iterator
from pathlib import Path

from stages.records import conversation
from stages.records.conversation import Conversation, part_text
from stages.records.fields import Record, checked_text
from stages.records.json_text import parse_json, read_text
from stages.records.refusal import Unusable
from stages.records.row import IMAGE

_EMBEDDED = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


def records(file: Path) -> Iterator[Record]:
    """Yield the records of a chat file, blank lines apart; a broken line is a ValueError that numbers it."""
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            value = parse_json(line, f"{file}: line {number}")
            if not isinstance(value, dict):
                raise ValueError(f"{file}: line {number} is not an object: write one JSON object a line")
            yield value


def read(record: Record, _folder: Path | None) -> Conversation:
    """Return the conversation of one line; every image is embedded in it."""
    images: list[bytes] = []
    turns = tuple(
        conversation.message(turn.get("role"), _content(turn.get("content"), images))
        for turn in conversation.turns_of(record, "messages")
    )
    return Conversation(turns, tuple(images))


def _content(content: object, images: list[bytes]) -> str:
    if isinstance(content, list):
        return conversation.joined([_part(part, images) for part in content])
    return checked_text(content, "content")


def _part(part: object, images: list[bytes]) -> str:
    if isinstance(part, dict) and part.get("type") == "text":
        return part_text(part.get("text"))
    if isinstance(part, dict) and part.get("type") == "image_url":
        place = part.get("image_url")
        images.append(_embedded(place.get("url") if isinstance(place, dict) else None))
        return IMAGE
    raise Unusable("a part is neither text nor image_url", "give each part one of these types")


def _embedded(url: object) -> bytes:
    start = _EMBEDDED.match(url) if isinstance(url, str) else None
    if start is None or not isinstance(url, str):
        raise Unusable(
            "an image_url is not embedded and nothing is fetched", "write url: 'data:image/png;base64,...'"
        )
    try:
        return base64.b64decode(url[start.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("an embedded image is not base64", "encode its bytes again") from None
