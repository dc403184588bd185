"""Public directions along which a zeroth-order step looks at the loss (DPZero, arXiv 2310.09639).

They are drawn from a public seed and drawn again whenever they are needed, so none is ever kept.

Shapes: K directions of a step, P trainable weights.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Distribution = Literal["gaussian", "laplace"]
"""Of the noise on the K slopes of a step."""


@dataclass(frozen=True, kw_only=True)
class Directions:
    """K standard normal directions a step, a function of ``seed`` and of nothing else."""

    count: int
    perturbation: float
    """How far the weights are moved along a direction, forth and back: phi."""
    seed: int
    """Public; secret streams are never drawn from it, nor it from them."""

    def __post_init__(self) -> None:
        """Refuse directions along which nothing can be seen."""
        if self.count < 1:
            raise ValueError(f"estimator.zeroth_order.directions must be at least 1, got {self.count}")
        if not (self.perturbation > 0 and math.isfinite(self.perturbation)):
            raise ValueError(
                f"estimator.zeroth_order.perturbation must be positive and finite, got {self.perturbation}"
            )

    def part(self, step: int, direction: int, name: str, shape: Sequence[int]) -> "Tensor":
        """Return the part of a direction that belongs to one weight, in float32 on the CPU.

        The same bits on every machine with the same version of torch.
        """
        import torch  # whoever only reads a plan, to price or to audit it, does without

        label = json.dumps([self.seed, step, direction, name]).encode()
        seed = int.from_bytes(hashlib.sha256(label).digest()[:8], "big") >> 1
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
