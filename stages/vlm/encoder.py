"""From images and rows to pruned visual tokens and token rows, by the frozen encoder.

Every image goes through the tower alone, so that its features are a function of that image, bit for bit,
whatever else is in the set.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from stages.core.ranks import ALONE, Ranks
from stages.records.encoded import EncodedSet, TokenRow
from stages.records.row import Row
from stages.vlm.family import Loaded
from stages.vlm.llava import Seen
from stages.vlm.pruning import Kept, dominant_contextual, keep_all
from stages.vlm.tokens import prune_slots, tokenise

_ROUND = 16
"""Images that a process encodes before it hands them to the leader."""


@dataclass(frozen=True, kw_only=True)
class TokenSelection:
    """Section ``tokens`` of params.yaml: what the language model sees of an image."""

    select: Literal["all", "dominant_contextual"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A selection rule with its public settings; ``all`` uses none of them."""

    select: Literal["all", "dominant_contextual"]
    layer: int
    """Encoder layer whose attention scores the patches, from 0."""
    dominant: int
    contextual: int

    def layers(self) -> tuple[int, ...]:
        """Return the encoder layers this rule needs scores of."""
        return () if self.select == "all" else (self.layer,)

    def keep(self, seen: Seen) -> Kept:
        """Apply the rule to what the tower saw."""
        if self.select == "all":
            return keep_all(seen.hidden_BTD)
        return dominant_contextual(
            seen.hidden_BTD,
            seen.scores[self.layer],
            seen.metrics[self.layer],
            dominant=self.dominant,
            contextual=self.contextual,
        )


@dataclass(frozen=True)
class EncodedImage:
    """The kept tokens of one image and the patches whose places they take."""

    features_SD: Tensor
    source_S: tuple[int, ...]


def pixels_of(loaded: Loaded, image: bytes) -> Tensor:
    """Return one image as the tower takes it, shape (1, C, H, W)."""
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    pixels: Tensor = loaded.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    return pixels.to(loaded.model.device, loaded.model.dtype)


def encode_image(loaded: Loaded, image: bytes, rule: Rule) -> EncodedImage:
    """Run the tower on one image and keep what ``rule`` keeps."""
    kept = rule.keep(loaded.family.look(loaded.model, pixels_of(loaded, image), rule.layers()))
    return EncodedImage(kept.features_BSD[0].cpu(), tuple(kept.source_BS[0].tolist()))


def encode_images(
    loaded: Loaded,
    images: Sequence[bytes],
    rule: Rule,
    advance: Callable[[int], None],
    ranks: Ranks = ALONE,
) -> Iterator[EncodedImage]:
    """Encode images one by one, shared by all processes; the one that leads gets all, in order, others none.

    A rule that this model cannot follow is refused before the first.
    """
    if rule.select != "all":
        loaded.family.require_prunable(loaded.model)
        scored = loaded.family.scored_layers(loaded.model)
        if rule.layer not in scored:
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
    loaded: Loaded,
    rows: Sequence[Row],
    images_of_row: Sequence[tuple[int, ...]],
    sources: Sequence[tuple[int, ...]],
    kinds: Sequence[str],
) -> list[TokenRow]:
    """Tokenise rows with the slots that their images kept; units become indices as they first appear."""
    slots = loaded.family.slots_per_image(loaded.model)
    image_token_id = loaded.model.config.image_token_id
    units: dict[str, int] = {}
    encoded = []
    for row, images in zip(rows, images_of_row, strict=True):
        pruned = prune_slots(
            tokenise(row, loaded.processor, slots),
            image_token_id,
            [sources[image] for image in images],
            slots,
        )
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
    seen = list(encode_images(loaded, images, rule, advance, ranks))
    if not ranks.leads:
        rows, images_of_row = [], []
    features = [image.features_SD for image in seen]
    return assemble(
        loaded,
        rows,
        images_of_row,
        torch.stack(features) if features else torch.zeros(0, 0, 0),
        [image.source_S for image in seen],
    )


def assemble(
    loaded: Loaded,
    rows: Sequence[Row],
    images_of_row: Sequence[tuple[int, ...]],
    features_ISD: Tensor,
    sources: Sequence[tuple[int, ...]],
) -> EncodedSet:
    """Return rows and kept features as one set; ``sources`` are the patches whose places features take."""
    kinds = sorted({row.kind for row in rows})
    return EncodedSet(
        features_ISD=features_ISD,
        rows=tuple(encode_rows(loaded, rows, images_of_row, sources, kinds)),
        kinds=tuple(kinds),
        pad_token_id=pad_token_id(loaded),
        image_token_id=loaded.model.config.image_token_id,
    )


def pad_token_id(loaded: Loaded) -> int:
    """Return the token that fills short rows; it is masked, so any will do where the tokenizer names none."""
    found = loaded.processor.tokenizer.pad_token_id
    return int(found if found is not None else 0)
