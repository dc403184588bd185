"""Bound what one privacy unit can do to a sum of gradients.

Shapes: R rows in a micro-batch, U units in it (may be 0), P trainable weights, flattened.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClippedSum:
    """A sum over units to which each contributes at most ``clip`` in L2 norm."""

    sum_P: Tensor
    clip: float

    def sensitivity(self) -> float:
        """Return the L2 distance by which adding or removing one unit moves the sum."""
        return self.clip

    def __add__(self, other: "ClippedSum") -> "ClippedSum":
        """Add sums over disjoint units."""
        if self.clip != other.clip:
            raise ValueError(f"sums clipped at {self.clip} and {other.clip} have no common sensitivity")
        return ClippedSum(self.sum_P + other.sum_P, self.clip)


def unit_means(grads_RP: Tensor, unit_of_row_R: Tensor, units: int) -> Tensor:
    """Average the rows of each unit, shape (U, P).

    ``unit_of_row_R`` holds 0 .. units - 1; every unit has at least one row in the micro-batch, and all of
    them.
    """
    rows_U = torch.bincount(unit_of_row_R, minlength=units)
    if grads_RP.shape[0] != unit_of_row_R.shape[0] or rows_U.shape != (units,) or bool((rows_U == 0).any()):
        raise ValueError(
            f"{grads_RP.shape[0]} row gradients and {unit_of_row_R.shape[0]} rows do not belong to "
            f"{units} units with a row each"
        )
    sums_UP = grads_RP.new_zeros(units, grads_RP.shape[1]).index_add_(0, unit_of_row_R, grads_RP)
    return sums_UP / rows_U[:, None]


def clip_sum(grads_UP: Tensor, clip: float) -> ClippedSum:
    """Scale every unit's gradient to L2 norm at most ``clip``, then add them.

    The clipping step of DP-SGD (Abadi et al. 2016, Algorithm 1). Norms, products and sum in float64.

    Guarantee: adding or removing one unit moves ``sum_P`` by at most ``clip`` in L2 norm, up to rounding in
    float64, whatever the unit holds.

    Edge cases: no units gives zeros; a zero gradient adds nothing; one with NaN or infinity adds nothing.

    >>> clip_sum(torch.tensor([[3.0, 4.0], [0.0, 0.5]]), clip=1.0).sum_P
    tensor([0.6000, 1.3000], dtype=torch.float64)
    """
    if not 0 < clip < math.inf:
        raise ValueError(f"clip must be positive and finite, got {clip}")
    wide_UP = grads_UP.double()
    norms_U = wide_UP.norm(dim=1)
    scale_U = (clip / norms_U).clamp(max=1.0)
    rows_UP = (scale_U[:, None] * wide_UP).where(norms_U.isfinite()[:, None], 0.0)
    return ClippedSum(rows_UP.sum(dim=0), clip)
