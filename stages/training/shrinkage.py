"""Shrink the singular values of a noisy gradient as far as the known noise explains them.

The shrinker that is optimal for the Frobenius loss when noise is white and its level known (Gavish and Donoho
2017, section II and Table I). Post-processing of what was released.

Shapes: P trainable weights, m x n one of them (m <= n), S = m singular values.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from stages.training.noisy_mean import NoisyMean


def shrunk(noisy: NoisyMean, blocks: Iterable[tuple[slice, torch.Size]]) -> NoisyMean:
    """Return the mean with every matrix among ``blocks`` shrunk; other weights stay as they are.

    Guarantee: a function of the noisy mean and of its public noise level. Without noise nothing changes.

    Edge cases: a matrix whose every singular value noise explains becomes zero, and its weights rest.
    """
    if not isinstance(noisy, NoisyMean):
        raise TypeError(f"only a noisy mean is shrunk, got {type(noisy).__name__}")
    if noisy.deviation == 0:
        return noisy
    mean_P = noisy.mean_P
    for where, shape in blocks:
        if len(shape) == 2:
            mean_P[where] = _matrix(mean_P[where].view(shape).double(), noisy.deviation).flatten()
    return NoisyMean(mean_P, 1.0, noisy.deviation)


def _matrix(noisy: Tensor, deviation: float) -> Tensor:
    left, values_S, right = torch.linalg.svd(noisy, full_matrices=False)
    ratio = min(noisy.shape) / max(noisy.shape)
    scale = deviation * max(noisy.shape) ** 0.5
    found: Tensor = (left * (scale * shrunk_values(values_S / scale, ratio))) @ right
    return found


def shrunk_values(values_S: Tensor, ratio: float) -> Tensor:
    """Return singular values, in units of the noise's, shrunk: zero up to 1 + sqrt(``ratio``).

    >>> shrunk_values(torch.tensor([1.9, 2.0, 4.0]), 1.0)
    tensor([0.0000, 0.0000, 3.4641])
    """
    inside_S = ((values_S**2 - ratio - 1) ** 2 - 4 * ratio).clamp(min=0)
    return torch.where(values_S > 1 + ratio**0.5, inside_S.sqrt() / values_S, 0.0)
