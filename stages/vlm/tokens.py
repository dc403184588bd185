"""Turn a row into tokens, with image slots for the kept visual tokens only.

The unpruned sequence is what the model's own processor would write; a pruned one drops image slots and
keeps, for every token that stays, the position it had there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.records.encoded import IGNORED
from stages.records.row import IMAGE, Message, Row


class TokenSequence(NamedTuple):
    """Token ids, the label *at* each place, and each token's position in the unpruned sequence."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    position_ids: tuple[int, ...]


def tokenise(row: Row, processor: Any, slots_per_image: int) -> TokenSequence:
    """Return the unpruned tokens of a row, ``slots_per_image`` image slots for every image.

    Every assistant turn is learned: its text and the end mark that the chat template puts behind it.
    """
    text, learned = _render(row.messages, processor, slots_per_image)
    encoded = processor.tokenizer(text, return_offsets_mapping=True)
    labels = tuple(
        token if any(start <= first < end for start, end in learned) and last > first else IGNORED
        for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    )
    if all(label == IGNORED for label in labels):
        raise ValueError(f"record '{row.id}': the tokenizer leaves nothing of the answer to learn")
    return TokenSequence(tuple(encoded["input_ids"]), labels, tuple(range(len(labels))))


def tokenise_prompt(messages: Sequence[Message], processor: Any, slots_per_image: int) -> TokenSequence:
    """Return the unpruned tokens of a conversation that waits for the assistant's turn."""
    text = _expand(_template(messages, processor, True), processor, slots_per_image)
    ids = tuple(processor.tokenizer(text)["input_ids"])
    return TokenSequence(ids, (IGNORED,) * len(ids), tuple(range(len(ids))))


def prune_slots(
    tokens: TokenSequence, image_token_id: int, sources: Sequence[Sequence[int]], slots_per_image: int
) -> TokenSequence:
    """Drop image slots: image n keeps as many as ``sources[n]`` names, at the positions of those patches.

    ``sources[n]`` holds patch indices in 0 .. slots_per_image - 1, in slot order.
    """
    at = [place for place, token in enumerate(tokens.input_ids) if token == image_token_id]
    if len(at) != slots_per_image * len(sources):
        raise ValueError(f"{len(at)} image slots for {len(sources)} images of {slots_per_image} slots")
    kept: list[int] = []
    position_of: list[int] = []
    slot_places = set(at)
    next_image = 0
    for place in range(len(tokens.input_ids)):
        if place not in slot_places:
            kept.append(place)
            position_of.append(tokens.position_ids[place])
        elif place == at[next_image * slots_per_image]:
            run = at[next_image * slots_per_image : (next_image + 1) * slots_per_image]
            kept += run[: len(sources[next_image])]
            position_of += [tokens.position_ids[run[source]] for source in sources[next_image]]
            next_image = min(next_image + 1, len(sources) - 1)
    return TokenSequence(
        tuple(tokens.input_ids[place] for place in kept),
        tuple(tokens.labels[place] for place in kept),
        tuple(position_of),
    )


def _render(
    messages: Sequence[Message], processor: Any, slots_per_image: int
) -> tuple[str, list[tuple[int, int]]]:
    text = _expand(_template(messages, processor, False), processor, slots_per_image)
    learned = []
    for index, message in enumerate(messages):
        if message.role == "assistant":
            before = _expand(_template(messages[:index], processor, True), processor, slots_per_image)
            upto = _expand(_template(messages[: index + 1], processor, False), processor, slots_per_image)
            if not (upto.startswith(before) and text.startswith(upto)):
                raise ValueError(
                    "the model's chat template rewrites earlier turns, so the answer cannot be told from "
                    "the question"
                )
            learned.append((len(before), len(upto)))
    return text, learned


def _template(messages: Sequence[Message], processor: Any, generation: bool) -> str:
    text: str = processor.apply_chat_template(
        messages_of(messages), tokenize=False, add_generation_prompt=generation
    )
    return text


def messages_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return a conversation as chat templates take it."""
    return [{"role": message.role, "content": _content(message.content)} for message in messages]


def _content(content: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for index, piece in enumerate(content.split(IMAGE)):
        if index:
            parts.append({"type": "image"})
        if piece.strip():
            parts.append({"type": "text", "text": piece.strip()})
    return parts


def _expand(text: str, processor: Any, slots_per_image: int) -> str:
    mark: str = processor.image_token
    return text.replace(mark, mark * slots_per_image)
