"""A conversation that can be trained on: turns in order, and a mark for each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.records.fields import checked_text
from stages.records.refusal import Unusable, quote
from stages.records.row import IMAGE, Message, Role

CHAT_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class Conversation:
    """Alternating turns whose ``IMAGE`` marks match the images in number and order.

    Guarantee: at most one system turn, which comes first; then user and assistant by turns, the assistant
    last; no turn is empty; only user turns hold marks, one for each image. Anything else is ``Unusable``.
    """

    messages: tuple[Message, ...]
    images: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Refuse what the trainer could not learn from."""
        has_system = bool(self.messages) and self.messages[0].role == "system"
        turns = self.messages[has_system:]
        if not any(turn.role == "assistant" for turn in turns):
            raise Unusable("no assistant turn, so nothing to learn", "add the answer or drop the record")
        if tuple(turn.role for turn in turns) != ("user", "assistant") * (len(turns) // 2):
            raise Unusable("not an alternation of user and assistant turns", "merge or reorder its turns")
        for number, turn in enumerate(self.messages, 1):
            if not turn.content.strip():
                raise Unusable(f"turn {number} ({turn.role}) is empty", "fill it in or drop the record")
            if turn.role != "user" and IMAGE in turn.content:
                raise Unusable(f"turn {number} ({turn.role}) holds {IMAGE}", "show images in user turns only")
        marks = sum(turn.content.count(IMAGE) for turn in turns)
        if marks != len(self.images):
            raise Unusable(f"{marks} {IMAGE} marks for {len(self.images)} images", "write one mark an image")


def message(role: object, content: str, roles: Mapping[str, Role] = CHAT_ROLES) -> Message:
    """Return a turn; ``roles`` translates the format's own names."""
    if not isinstance(role, str) or role not in roles:
        raise Unusable(f"role {quote(role)} is unknown", f"use one of {', '.join(roles)}")
    return Message(roles[role], content)


def turns_of(record: Mapping[str, object], field: str) -> list[dict[str, object]]:
    """Return the list of turns in ``field``, each of them a mapping."""
    value = record.get(field)
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise Unusable(f"'{field}' is not a list of turns", "write one mapping a turn")
    return value


def part_text(value: object) -> str:
    """Return the text of a text part, which is no place for a mark: there an image is a part of its own."""
    text = checked_text(value, "a text part")
    if IMAGE in text:
        raise Unusable(f"a text part holds {IMAGE}", "make the image a part of its own")
    return text


def joined(parts: Sequence[str]) -> str:
    r"""Return the content whose parts are ``parts``, each on a line of its own.

    >>> joined([IMAGE, "what is this ?"])
    '<image>\nwhat is this ?'
    """
    return "\n".join(parts)


def with_images_in_front(messages: Sequence[Message], count: int) -> tuple[Message, ...]:
    """Put ``count`` marks in front of the first user turn, unless some turn holds a mark already."""
    first = next((number for number, turn in enumerate(messages) if turn.role == "user"), None)
    if first is None or any(IMAGE in turn.content for turn in messages):
        return tuple(messages)
    marked = Message("user", joined([IMAGE] * count + [messages[first].content]))
    return (*messages[:first], marked, *messages[first + 1 :])
