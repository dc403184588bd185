"""What a frozen model makes of one image before and after pruning.

Shapes: T slots of one image, P of them patches, S slots that stay, D width of a slot, E width of the
similarity metric.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Fate = Literal["kept", "centre", "merged", "dropped"]
"""What becomes of a patch: stays as it is, centre of a merged token, merged into one, gone."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, as shares of its width and height."""


@dataclass(frozen=True)
class Frame:
    """How a row writes an image before pruning."""

    text: str
    """What stands in the text for the image: its slots, and whatever marks and words the model puts there."""
    runs: tuple[int, ...]
    """How many slots stand together, run by run; T in all."""
    grid: tuple[int, ...] = ()
    """How the image was divided, where positions or pictures need it; the family knows its meaning."""
    boxes: tuple[Box, ...] = ()
    """Which part of the image each panel shows; none: every panel shows all of it."""


@dataclass(frozen=True)
class Prepared:
    """One image as the model's own processor prepares it."""

    inputs: dict[str, Tensor]
    frame: Frame


@dataclass(frozen=True)
class Seen:
    """What the frozen vision side of a model made of one image."""

    slots_TD: Tensor
    """As they enter the language side, before pruning."""
    patch_P: Tensor
    """The slots that show a part of the image; the others are marks such as the end of a line."""
    panels: tuple[tuple[int, int], ...]
    """Rows and columns of each picture that the image was taken apart into, row by row; P patches in all."""
    scores: dict[int, Tensor]
    """Importance of each patch by encoder layer, (P,) each."""
    metrics: dict[int, Tensor]
    """Similarity metric of each patch by encoder layer, (P, E) each, of length 1."""
    work: dict[int, int]
    """Multiplications that the attention map of an encoder layer took beside the tower's own."""


@dataclass(frozen=True)
class KeptImage:
    """The slots of one image that stay, in the order in which a row shows them."""

    features_SD: Tensor
    source_S: tuple[int, ...]
    """The slot, in 0 .. T - 1, whose place and position each takes."""
    frame: Frame


def in_runs(features_SD: Tensor, source_S: Tensor, frame: Frame) -> KeptImage:
    """Return kept slots run by run, in each run in the order given: a row shows runs one after the other.

    >>> kept = in_runs(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([5, 0, 4]), Frame("", (4, 4)))
    >>> kept.features_SD.flatten().tolist(), kept.source_S
    ([2.0, 1.0, 3.0], (0, 5, 4))
    """
    border = torch.tensor(frame.runs, device=source_S.device).cumsum(dim=0)
    order_S = torch.bucketize(source_S, border, right=True).argsort(stable=True)
    return KeptImage(features_SD[order_S].cpu(), tuple(source_S[order_S].tolist()), frame)
