"""Mechanism 2 of Dual-Priv: apply only part of a noisy update (Wei et al. 2025).

Everything here sees privatised sums only (the type says so), hence post-processing: the accountant is plain
DP-SGD's.

Shapes: P trainable weights.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stages.privacy.noise import NoisySum


@dataclass(frozen=True, kw_only=True)
class Update:
    """Section ``update`` of params.yaml."""

    prune: Literal["all", "block", "magnitude", "random", "accumulated"]
    """accumulated: from a warm-up on, only blocks that stood out in it (accumulated.py)."""
    keep: float
    """Fraction of blocks (block, accumulated) or weights (magnitude, random) that a step updates; unused by
    all."""
    warmup_steps: int
    """Steps in which accumulated updates everything; unused by other rules."""

    def __post_init__(self) -> None:
        """Refuse a fraction outside (0, 1], and a warm-up that nothing can be learned from."""
        if not 0 < self.keep <= 1:
            raise ValueError(f"update.keep must lie in (0, 1], got {self.keep}")
        if self.warmup_steps < 1:
            raise ValueError(f"update.warmup_steps must be at least 1, got {self.warmup_steps}")

    def warms_up(self, step: int) -> bool:
        """Tell whether ``step`` is one from which accumulated learns what stands out."""
        return self.prune == "accumulated" and step < self.warmup_steps

    def is_masked(self, step: int) -> bool:
        """Tell whether gradients are masked before they are clipped."""
        return self.prune == "accumulated" and step >= self.warmup_steps


def updated_weights(noisy: NoisySum, blocks: list[slice], section: Update, *, seed: int, step: int) -> Tensor:
    """Return which weights this step updates, shape (P,) of booleans.

    ``block``: score = noisy L2 norm / sqrt(numel), the best ceil(keep x blocks) blocks, a block being one
    LoRA factor. ``magnitude``: the ``keep`` fraction of largest absolute noisy values. ``random``: as many,
    from the public ``seed``. ``accumulated``: everything, for it masks before clipping (accumulated.py).

    Guarantee: a function of the noisy sum and public values alone.
    """
    total = noisy.sum_P.numel()
    if section.prune in ("all", "accumulated"):
        return torch.ones(total, dtype=torch.bool, device=noisy.sum_P.device)
    if section.prune == "block":
        return _blocks(noisy.sum_P, blocks, math.ceil(section.keep * len(blocks)))
    kept = max(1, round(section.keep * total))
    if section.prune == "magnitude":
        score_P = noisy.sum_P.abs()
    else:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        score_P = torch.rand(total, generator=generator).to(noisy.sum_P.device)
    is_updated_P = torch.zeros(total, dtype=torch.bool, device=noisy.sum_P.device)
    is_updated_P[score_P.topk(kept).indices] = True
    return is_updated_P


def _blocks(noisy_P: Tensor, blocks: list[slice], kept: int) -> Tensor:
    scores = torch.stack([noisy_P[block].norm() / math.sqrt(block.stop - block.start) for block in blocks])
    is_updated_P = torch.zeros_like(noisy_P, dtype=torch.bool)
    for index in scores.topk(kept).indices.tolist():
        is_updated_P[blocks[index]] = True
    return is_updated_P
