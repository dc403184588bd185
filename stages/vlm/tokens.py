"""Turn a row into tokens, with image slots for the kept visual tokens only.

The unpruned sequence is what the model's own processor would write; a pruned one drops image slots and
keeps, for every token that stays, the position it had there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from stages.records.row import Message, Row, Shown
from stages.records.token_rows import IGNORED
from stages.vlm.loaded import Loaded
from stages.vlm.seen import Frame, KeptImage


class TokenSequence(NamedTuple):
    """Token ids, the label *at* each place, and along each axis each token's position in the unpruned row."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    position_ids: tuple[tuple[int, ...], ...]


def tokenise(row: Row, loaded: Loaded, frames: Sequence[Frame]) -> TokenSequence:
    """Return the unpruned tokens of a row whose images are written as ``frames`` say.

    Every assistant turn is learned: its text and the end mark that the chat template puts behind it, without
    the space behind that. Where the template puts none (LLaVA-1.5's does not), the tokenizer's own is put
    there: a model that never learns to stop answers nothing exactly.
    """
    text, learned = _render(row.messages, loaded, frames)
    tokenizer = loaded.processor.tokenizer
    encoded = tokenizer(
        text,
        return_offsets_mapping=True,
        add_special_tokens=not _has_begin(text, tokenizer),
        verbose=False,  # it would log how long a private row is
    )
    labels = tuple(
        token if any(start <= first < end for start, end in learned) and last > first else IGNORED
        for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    )
    if all(label == IGNORED for label in labels):
        raise ValueError(f"record '{row.id}': the tokenizer leaves nothing of the answer to learn")
    most = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and len(labels) > most:
        raise ValueError(
            f"record '{row.id}' has {len(labels)} tokens, and the model has positions for {most}"
        )
    return _placed(loaded, encoded["input_ids"], labels, frames)


def tokenise_rows(
    rows: Iterable[Shown], loaded: Loaded, frame_of: Callable[[int], Frame]
) -> Iterator[TokenSequence]:
    """Yield the unpruned tokens of row after row; ``frame_of`` an image says how a row writes it."""
    for row, images in rows:
        yield tokenise(row, loaded, [frame_of(image) for image in images])


def tokenise_prompt(messages: Sequence[Message], loaded: Loaded, frames: Sequence[Frame]) -> TokenSequence:
    """Return the unpruned tokens of a conversation that waits for the assistant's turn."""
    text = _expand(loaded.family.render(loaded.processor, messages, True), loaded, frames)
    tokenizer = loaded.processor.tokenizer
    ids = tokenizer(text, add_special_tokens=not _has_begin(text, tokenizer), verbose=False)["input_ids"]
    return _placed(loaded, ids, (IGNORED,) * len(ids), frames)


def prune_slots(tokens: TokenSequence, image_token_id: int, images: Sequence[KeptImage]) -> TokenSequence:
    """Drop image slots: each image keeps as many as it names sources, at the positions of those slots."""
    places = [place for place, token in enumerate(tokens.input_ids) if token == image_token_id]
    slots = sum(sum(image.frame.runs) for image in images)
    if len(places) != slots:
        raise ValueError(f"{len(places)} image slots for {len(images)} images of {slots} slots")
    is_slot = set(places)
    position_of = {place: place for place in range(len(tokens.input_ids)) if place not in is_slot}
    position_of |= dict(_kept(places, images))
    kept = sorted(position_of)
    return TokenSequence(
        tuple(tokens.input_ids[place] for place in kept),
        tuple(tokens.labels[place] for place in kept),
        tuple(tuple(axis[position_of[place]] for place in kept) for axis in tokens.position_ids),
    )


def _kept(places: Sequence[int], images: Sequence[KeptImage]) -> Iterator[tuple[int, int]]:
    """Yield each slot that stays: where it stands, and the place whose position it takes."""
    first = 0  # slot of the row, counted over all images
    for image in images:
        start = 0
        for run in image.frame.runs:
            sources = [source for source in image.source_S if start <= source < start + run]
            for index, source in enumerate(sources):
                yield places[first + start + index], places[first + source]
            start += run
        first += start


def _placed(
    loaded: Loaded, ids: Sequence[int], labels: tuple[int, ...], frames: Sequence[Frame]
) -> TokenSequence:
    loaded.family.require_row(loaded.model, len(frames))
    axes = loaded.family.positions(loaded.model, ids, frames)
    return TokenSequence(tuple(ids), labels, tuple(tuple(axis) for axis in axes))


def _render(
    messages: Sequence[Message], loaded: Loaded, frames: Sequence[Frame]
) -> tuple[str, list[tuple[int, int]]]:
    def written(turns: Sequence[Message], generation: bool) -> str:
        return _expand(loaded.family.render(loaded.processor, turns, generation), loaded, frames)

    text = written(messages, False)
    learned = []
    for index, message in enumerate(messages):
        if message.role == "assistant":
            before, upto = written(messages[:index], True), written(messages[: index + 1], False)
            if not (upto.startswith(before) and text.startswith(upto)):
                raise ValueError(
                    "the model's chat template rewrites earlier turns, so the answer cannot be told from "
                    "the question"
                )
            learned.append((len(before), len(upto.rstrip())))
    return _ended(text, learned, loaded)


def _ended(text: str, learned: list[tuple[int, int]], loaded: Loaded) -> tuple[str, list[tuple[int, int]]]:
    """Return a row's text and where its answers are, each of them with an end mark."""
    tokenizer, found, added = loaded.processor.tokenizer, [], 0
    marks = tokenizer.convert_ids_to_tokens(sorted(loaded.end_marks()))
    for start, end in learned:
        start, end = start + added, end + added
        if not any(text[start:end].endswith(mark) for mark in marks):
            if tokenizer.eos_token is None:
                raise ValueError(
                    "neither the model's chat template nor its tokenizer has an end mark for answers"
                )
            text = text[:end] + tokenizer.eos_token + text[end:]
            added += len(tokenizer.eos_token)
            end += len(tokenizer.eos_token)
        found.append((start, end))
    return text, found


def _expand(text: str, loaded: Loaded, frames: Sequence[Frame]) -> str:
    """Write every image as its frame says; ``text`` holds the first of the images, or all."""
    first, *others = text.split(str(loaded.processor.image_token))
    if len(others) > len(frames):
        raise ValueError(f"{len(others)} image marks for {len(frames)} images")
    written = zip(frames, others, strict=False)
    return first + "".join(frame.text + piece for frame, piece in written)


def _has_begin(text: str, tokenizer: object) -> bool:
    """Tell whether the template wrote the begin mark already, so that the tokenizer must not again."""
    begin = getattr(tokenizer, "bos_token", None)
    return bool(begin) and text.startswith(str(begin))
