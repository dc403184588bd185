"""From images and rows to pruned visual tokens and token rows, by the frozen encoder.

Every image goes through the tower alone, so that its features are a function of that image, bit for bit,
whatever else is in the set.
"""

import io
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from stages.core.ranks import ALONE, Ranks
from stages.records.encoded import EncodedSet, TokenRow
from stages.records.features import Features
from stages.records.row import Row
from stages.vlm.loaded import Loaded
from stages.vlm.seen import KeptImage, Prepared, in_runs
from stages.vlm.selection import Rule
from stages.vlm.tokens import TokenSequence, prune_slots, tokenise

_ROUND = 16
"""Images that a process encodes before it hands them to the leader."""


def prepare(loaded: Loaded, image: bytes) -> Prepared:
    """Return one image as the model's vision side takes it."""
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    return loaded.family.prepare(loaded.processor, picture)


def encode_image(loaded: Loaded, image: bytes, rule: Rule) -> KeptImage:
    """Run the tower on one image and keep what ``rule`` keeps."""
    prepared = prepare(loaded, image)
    return in_runs(*rule.keep(loaded.family.look(loaded.model, prepared, rule.layers())), prepared.frame)


def encode_images(
    loaded: Loaded,
    images: Sequence[bytes],
    rule: Rule,
    advance: Callable[[int], None],
    ranks: Ranks = ALONE,
) -> Iterator[KeptImage]:
    """Encode images one by one, shared by all processes; the one that leads gets all, in order, others none.

    A rule that this model cannot follow is refused before the first.
    """
    if rule.select != "all":
        loaded.family.require_prunable(loaded.model)
        scored = loaded.family.scored_layers(loaded.model)
        if rule.needs_attention and rule.layer not in scored:
            raise ValueError(f"the rule's layer {rule.layer} is not among the encoder layers {list(scored)}")
    at_once = _ROUND * ranks.world
    for start in range(0, len(images), at_once):
        some = images[start : start + at_once]
        parts = ranks.to_leader([encode_image(loaded, image, rule) for image in ranks.share(some)])
        for index in range(len(some) if ranks.leads else 0):
            yield parts[index % ranks.world][index // ranks.world]
            advance(start + index + 1)


def distinct_images(rows: Sequence[Row]) -> tuple[list[bytes], list[tuple[int, ...]]]:
    """Return the distinct images and, for each row, the indices of its images among them."""
    index: dict[bytes, int] = {}
    return_rows = [tuple(index.setdefault(image, len(index)) for image in row.images) for row in rows]
    return list(index), return_rows


def encode_rows(
    rows: Sequence[Row],
    tokens: Sequence[TokenSequence],
    images_of_row: Sequence[tuple[int, ...]],
    kept: Sequence[KeptImage],
    kinds: Sequence[str],
    image_token_id: int,
) -> list[TokenRow]:
    """Prune unpruned rows to the slots that their images kept; units become indices as they first appear."""
    units: dict[str, int] = {}
    encoded = []
    for row, whole, images in zip(rows, tokens, images_of_row, strict=True):
        pruned = prune_slots(whole, image_token_id, [kept[image] for image in images])
        unit = units.setdefault(row.unit, len(units))
        encoded.append(TokenRow(*pruned, images=images, unit=unit, kind=kinds.index(row.kind)))
    return encoded


def encode_set(
    loaded: Loaded,
    rows: Sequence[Row],
    rule: Rule,
    advance: Callable[[int], None] = lambda done: None,
    ranks: Ranks = ALONE,
) -> EncodedSet:
    """Encode rows and their distinct images under ``rule``; ``advance`` is told how many images are done.

    Where several processes share the work, the one that leads gets the set and the others an empty one.
    """
    images, images_of_row = distinct_images(rows)
    kept = list(encode_images(loaded, images, rule, advance, ranks))
    if not ranks.leads:
        rows, images_of_row = [], []
    tokens = [
        tokenise(row, loaded, [kept[image].frame for image in shown])
        for row, shown in zip(rows, images_of_row, strict=True)
    ]
    return assemble(loaded, rows, tokens, images_of_row, kept, rule)


def assemble(
    loaded: Loaded,
    rows: Sequence[Row],
    tokens: Sequence[TokenSequence],
    images_of_row: Sequence[tuple[int, ...]],
    kept: Sequence[KeptImage],
    rule: Rule,
) -> EncodedSet:
    """Return rows, whose unpruned ``tokens`` are given, and what ``rule`` kept of their images as one set."""
    kinds, image_token_id = sorted({row.kind for row in rows}), loaded.model.config.image_token_id
    return EncodedSet(
        features=Features.of([image.features_SD for image in kept]),
        rows=tuple(encode_rows(rows, tokens, images_of_row, kept, kinds, image_token_id)),
        kinds=tuple(kinds),
        pad_token_id=pad_token_id(loaded),
        image_token_id=image_token_id,
        visual_tokens=rule.slots(loaded.family.slots_per_image(loaded.model)),
    )


def pad_token_id(loaded: Loaded) -> int:
    """Return the token that fills short rows; it is masked, so any will do where the tokenizer names none."""
    found = loaded.processor.tokenizer.pad_token_id
    return int(found if found is not None else 0)
