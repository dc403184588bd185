"""Accumulated update pruning: noisy sums of the first steps decide what may be updated in all later ones.

Adaptive composition (as TP-TopK and SPARTA): what the support is follows from sums that were released, with
their noise, and are paid for. Behind the warm-up, gradients are masked to the support before they are clipped
and noise is put on the support alone; clip and noise multiplier stay as planned, so each step's privacy event
is the planned one, whatever the support.

Shapes: B blocks (a block is one trainable weight tensor), P trainable weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.privacy.noise import NoisySum


@dataclass(frozen=True)
class Scores:
    """How much more than noise each block's released sums held; made from ``NoisySum`` alone."""

    total_B: Tensor
    """Over steps, the mean over a block of (noisy value squared - the noise's variance), in float64."""

    @classmethod
    def zeros(cls, blocks: Mapping[str, slice]) -> "Scores":
        """Return the scores before any step."""
        return cls(torch.zeros(len(blocks), dtype=torch.float64))

    def after(self, noisy: NoisySum, deviation: float, blocks: Mapping[str, slice]) -> "Scores":
        """Return the scores with one released sum more; ``deviation`` is the public one of its noise.

        Guarantee: post-processing. A raw gradient, or a sum that is only clipped, is a TypeError.
        """
        if not isinstance(noisy, NoisySum):
            raise TypeError(f"scores are made from noisy sums only, got {type(noisy).__name__}")
        means = [noisy.sum_P[where].double().square().mean() - deviation**2 for where in blocks.values()]
        return Scores(self.total_B + torch.stack(means).cpu())

    def best(self, keep: float, blocks: Mapping[str, slice]) -> frozenset[str]:
        """Return the ceil(``keep`` x B) blocks of largest score, the first ones among equals."""
        order = self.total_B.argsort(descending=True, stable=True).tolist()
        names = list(blocks)
        return frozenset(names[place] for place in order[: math.ceil(keep * len(names))])


def mask_of(support: frozenset[str], blocks: Mapping[str, slice], like_P: Tensor) -> Tensor:
    """Return which weights lie in the support, shape (P,) of booleans."""
    is_in_P = torch.zeros(like_P.shape, dtype=torch.bool, device=like_P.device)
    for name in support:
        is_in_P[blocks[name]] = True
    return is_in_P
