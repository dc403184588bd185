"""What is known of an encoder layer as a judge of patches, beside the answers that survive its pruning.

Shapes: P patches of one image, K of them that would stay.
"""

import io
from collections.abc import Iterator, Sequence

from PIL import Image, ImageEnhance
from torch import Tensor

from stages.vlm.encoder import prepare
from stages.vlm.loaded import Loaded
from stages.vlm.seen import Seen


def concentration(scores_P: Tensor, count: int) -> float:
    """Return the share of all importance that the ``count`` most important patches have.

    >>> from torch import tensor
    >>> concentration(tensor([4.0, 1.0, 2.0, 1.0]), 2)
    0.75
    """
    total = float(scores_P.sum())
    return float(scores_P.topk(min(count, len(scores_P))).values.sum()) / total if total else 0.0


def agreement(one_P: Tensor, other_P: Tensor, count: int) -> float:
    """Return the share of the ``count`` most important patches on which two judgements agree.

    >>> from torch import tensor
    >>> agreement(tensor([3.0, 2.0, 1.0]), tensor([3.0, 1.0, 2.0]), 2)
    0.5
    """
    count = min(count, len(one_P))
    return len(set(one_P.topk(count).indices.tolist()) & set(other_P.topk(count).indices.tolist())) / count


def disturbed(image: bytes) -> Iterator[bytes]:
    """Return an image at half its resolution, darker with less contrast, and with its colours faded.

    Nothing moves, so every patch shows the same part of the image as before.
    """
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    half = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.BOX)
    darker = ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(0.7)).enhance(0.8)
    for changed in (
        half.resize(picture.size, Image.Resampling.BICUBIC),
        darker,
        ImageEnhance.Color(picture).enhance(0.3),
    ):
        file = io.BytesIO()
        changed.save(file, "PNG")
        yield file.getvalue()


def stability(
    loaded: Loaded, images: Sequence[bytes], seen: Sequence[Seen], layers: tuple[int, ...], count: int
) -> dict[int, float]:
    """Return for each layer the mean ``agreement`` between images and their ``disturbed`` versions."""
    found: dict[int, list[float]] = {layer: [] for layer in layers}
    for image, before in zip(images, seen, strict=True):
        for changed in disturbed(image):
            after = loaded.family.look(loaded.model, prepare(loaded, changed), layers)
            for layer in layers:
                found[layer].append(agreement(before.scores[layer], after.scores[layer], count))
    return {layer: sum(shares) / len(shares) if shares else 1.0 for layer, shares in found.items()}
