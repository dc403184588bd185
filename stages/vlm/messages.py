"""Conversations as chat templates take them."""

from collections.abc import Sequence
from typing import Any

from stages.records.row import IMAGE, Message


def messages_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return a conversation as chat templates take it: parts of text and places of images."""
    return [{"role": message.role, "content": _content(message.content)} for message in messages]


def _content(content: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for index, piece in enumerate(content.split(IMAGE)):
        if index:
            parts.append({"type": "image"})
        if piece.strip():
            parts.append({"type": "text", "text": piece.strip()})
    return parts
