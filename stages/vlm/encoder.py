"""From images and rows to pruned visual tokens and token rows, by the frozen encoder.

Every image goes through the tower alone, so that its features are a function of that image, bit for bit,
whatever else is in the set.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence

from PIL import Image

from stages.records.encoded import EncodedSet
from stages.records.features import Features
from stages.records.row import Row, Shown
from stages.records.token_rows import TokenRow, TokenRows
from stages.vlm.loaded import Loaded
from stages.vlm.seen import KeptImage, Prepared, in_runs
from stages.vlm.selection import Rule
from stages.vlm.tokens import TokenSequence, prune_slots, tokenise_rows


def prepare(loaded: Loaded, image: bytes) -> Prepared:
    """Return one image as the model's vision side takes it."""
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    return loaded.family.prepare(loaded.processor, picture)


def encode_image(loaded: Loaded, image: bytes, rule: Rule) -> KeptImage:
    """Run the tower on one image and keep what ``rule`` keeps."""
    prepared = prepare(loaded, image)
    return in_runs(*rule.keep(loaded.family.look(loaded.model, prepared, rule.layers())), prepared.frame)


def require_rule(loaded: Loaded, rule: Rule) -> None:
    """Refuse a rule that this model cannot follow."""
    if rule.select == "all":
        return
    loaded.family.require_prunable(loaded.model)
    scored = loaded.family.scored_layers(loaded.model)
    if rule.needs_attention and rule.layer not in scored:
        raise ValueError(f"the rule's layer {rule.layer} is not among the encoder layers {list(scored)}")


def distinct_images(rows: Sequence[Row]) -> tuple[list[bytes], list[tuple[int, ...]]]:
    """Return the distinct images and, for each row, the indices of its images among them."""
    index: dict[bytes, int] = {}
    return_rows = [tuple(index.setdefault(image, len(index)) for image in row.images) for row in rows]
    return list(index), return_rows


def encode_rows(
    rows: Iterable[Shown],
    tokens: Iterable[TokenSequence],
    kept: Callable[[int], KeptImage],
    kinds: Sequence[str],
    image_token_id: int,
) -> Iterator[TokenRow]:
    """Prune unpruned rows to the slots that their images kept; units become indices as they first appear."""
    units: dict[str, int] = {}
    for (row, images), whole in zip(rows, tokens, strict=True):
        pruned = prune_slots(whole, image_token_id, [kept(image) for image in images])
        unit = units.setdefault(row.unit, len(units))
        yield TokenRow(*pruned, images=images, unit=unit, kind=kinds.index(row.kind))


def encode_set(loaded: Loaded, rows: Sequence[Row], rule: Rule) -> EncodedSet:
    """Encode rows and their distinct images under ``rule``, in memory."""
    require_rule(loaded, rule)
    images, images_of_row = distinct_images(rows)
    kept = [encode_image(loaded, image, rule) for image in images]
    shown = [*zip(rows, images_of_row, strict=True)]
    tokens = tokenise_rows(shown, loaded, lambda image: kept[image].frame)
    kinds = sorted({row.kind for row in rows})
    token_rows = encode_rows(shown, tokens, kept.__getitem__, kinds, image_token_id(loaded))
    features = Features.of([image.features_SD for image in kept])
    return assemble(loaded, TokenRows.of(token_rows), features, kinds, rule)


def assemble(
    loaded: Loaded, rows: TokenRows, features: Features, kinds: Sequence[str], rule: Rule
) -> EncodedSet:
    """Return rows and features, made by one model under one rule, as a set."""
    return EncodedSet(
        features=features,
        rows=rows,
        kinds=tuple(kinds),
        pad_token_id=pad_token_id(loaded),
        image_token_id=image_token_id(loaded),
        visual_tokens=rule.slots(loaded.family.slots_per_image(loaded.model)),
    )


def image_token_id(loaded: Loaded) -> int:
    """Return the token that stands where an image's features go."""
    return int(loaded.model.config.image_token_id)


def pad_token_id(loaded: Loaded) -> int:
    """Return the token that fills short rows; it is masked, so any will do where the tokenizer names none."""
    found = loaded.processor.tokenizer.pad_token_id
    return int(found if found is not None else 0)
