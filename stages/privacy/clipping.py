"""Bound what one privacy unit can do to a sum of gradients.

Shapes: U units in a batch (may be 0), L layers, P trainable weights, flattened.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.privacy.clipping_rule import Clipping, Norm, Rule

AUTOMATIC_STABILITY = 0.01
"""gamma of automatic clipping (Bu et al. 2023, section 3)."""


@dataclass(frozen=True)
class ClippedSum:
    """A sum over units to which each contributes at most ``clip`` in ``norm``."""

    sum_P: Tensor
    clip: float
    norm: Norm = "l2"

    def sensitivity(self) -> float:
        """Return the distance in ``norm`` by which adding or removing one unit moves the sum."""
        return self.clip

    def __add__(self, other: "ClippedSum") -> "ClippedSum":
        """Add sums over disjoint units."""
        if (self.clip, self.norm) != (other.clip, other.norm):
            raise ValueError(
                f"sums clipped at {self.clip} ({self.norm}) and {other.clip} ({other.norm}) have no common "
                "sensitivity"
            )
        return ClippedSum(self.sum_P + other.sum_P, self.clip, self.norm)


def clip_factors(squared_U_by_layer: Mapping[str, Tensor], clipping: Clipping) -> dict[str, Tensor]:
    """Return what each layer's part of every unit's gradient is multiplied by, shape (U,) in float64.

    Flat clipping is DP-SGD's (Abadi et al. 2016, Algorithm 1); automatic clipping is Bu et al. 2023; one norm
    a layer is McMahan et al. 2018, section 2.

    Guarantee: a unit's scaled gradient has L2 norm at most ``clipping.clip``.

    Edge cases: a unit that is not finite in some layer gets zero in all of them; a zero gradient stays zero.
    """
    norms_LU = torch.stack(list(squared_U_by_layer.values())).double().sqrt()
    is_finite_U = norms_LU.isfinite().all(dim=0)
    if clipping.groups == "whole":
        norms_LU, bound = torch.linalg.vector_norm(norms_LU, dim=0).expand_as(norms_LU), clipping.clip
    else:
        bound = clipping.clip / math.sqrt(len(norms_LU))
    factors_LU = _factor(norms_LU, bound, clipping.rule).where(is_finite_U, 0.0)
    return dict(zip(squared_U_by_layer, factors_LU, strict=True))


def clip_sum(grads_UP: Tensor, clip: float, *, rule: Rule = "flat", norm: Norm = "l2") -> ClippedSum:
    """Scale what every unit contributes to ``norm`` at most ``clip``, then add up.

    Norms, products and sum in float64.

    Guarantee: adding or removing one unit moves ``sum_P`` by at most ``clip`` in ``norm``, up to rounding in
    float64, whatever the unit holds.

    Edge cases: no units gives zeros; a zero gradient adds nothing; one with NaN or infinity adds nothing.

    >>> clip_sum(torch.tensor([[3.0, 4.0], [0.0, 0.5]]), clip=1.0).sum_P
    tensor([0.6000, 1.3000], dtype=torch.float64)
    """
    wide_UP = grads_UP.double()
    squared_U = torch.linalg.vector_norm(wide_UP, ord=1 if norm == "l1" else 2, dim=1).square()
    scale_U = clip_factors({"": squared_U}, Clipping(clip, rule))[""]
    rows_UP = (scale_U[:, None] * wide_UP).where((scale_U > 0)[:, None], 0.0)
    return ClippedSum(rows_UP.sum(dim=0), clip, norm)


def _factor(norms_LU: Tensor, bound: float, rule: str) -> Tensor:
    if rule == "automatic":
        return bound / (norms_LU + AUTOMATIC_STABILITY)
    return (bound / norms_LU).clamp(max=1.0)
