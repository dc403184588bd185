"""Sheets of sample images: what each layer finds important, and what each rule does with each patch.

For public records only: a picture of a private image is a release that nobody accounts for.
"""

import io
from collections.abc import Sequence

from PIL import Image

from stages.vlm.fidelity import Sample
from stages.vlm.pictures import FATES, Colour, Panelled, heat, sheet
from stages.vlm.selection import Rule


def layer_sheet(sample: Sample, layers: Sequence[int], images: int) -> Image.Image:
    """Draw, for the first ``images`` images, the importance of every patch by each layer."""
    rows = []
    for shown, index in zip(_panelled(sample), range(images), strict=False):
        seen, _ = sample.seen[index]
        drawn = [shown.drawn(heat(seen.scores[layer].tolist())) for layer in layers]
        rows.append([shown.drawn(_untouched), *drawn])
    return sheet(["image", *(f"layer {layer}" for layer in layers)], rows)


def contact_sheet(sample: Sample, rules: Sequence[Rule], images: int) -> Image.Image:
    """Draw, for the first ``images`` images, which patches each rule keeps, merges and drops."""
    rows = []
    for shown, index in zip(_panelled(sample), range(images), strict=False):
        seen, _ = sample.seen[index]
        drawn = [shown.drawn([FATES[fate] for fate in rule.fates(seen)].__getitem__) for rule in rules]
        rows.append([shown.drawn(_untouched), *drawn])
    titles = [f"{rule.select} {rule.dominant} + {rule.contextual}" for rule in rules]
    return sheet(["image", *titles], rows)


def _panelled(sample: Sample) -> list[Panelled]:
    found = []
    for image, (seen, frame) in zip(sample.images, sample.seen, strict=True):
        with Image.open(io.BytesIO(image)) as opened:
            found.append(Panelled(opened.convert("RGB"), seen.panels, frame))
    return found


def _untouched(patch: int) -> Colour:
    return (0, 0, 0, 0)
