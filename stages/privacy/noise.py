"""Turn a clipped sum into something that may be published."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.privacy.clipping import ClippedSum
from stages.privacy.prepared_noise import StandardNoise


@dataclass(frozen=True)
class NoisySum:
    """A sum over units that has left the private side: by ``add_noise``, or openly by ``publish``."""

    sum_P: Tensor


def add_noise(clipped: ClippedSum, noise_multiplier: float, noise: StandardNoise) -> NoisySum:
    """Add independent noise, ``noise_multiplier * clip`` times a standard one, to every coordinate.

    The Gaussian mechanism (Dwork and Roth 2014, section 3.5.3; DP-SGD, Abadi et al. 2016, Algorithm 1), or
    the Laplace mechanism (section 3.3) on a sum that was clipped in L1 norm.

    Guarantee: for a Poisson-sampled batch this is the event PoissonSampled(rate, Gaussian(noise_multiplier)),
    or that of Laplace, under add or remove of one unit. The sum and the noise are added in float64; whoever
    rounds the result later does so after the mechanism.
    """
    if not 0 < noise_multiplier < math.inf:
        raise ValueError(f"the noise multiplier must be positive and finite, got {noise_multiplier}")
    if noise.standard_P.shape != clipped.sum_P.shape:
        raise ValueError(f"noise for {len(noise.standard_P)} weights does not fit {len(clipped.sum_P)}")
    if (noise.distribution == "laplace") != (clipped.norm == "l1"):
        raise ValueError(f"{noise.distribution} noise does not hide a unit bounded in {clipped.norm} norm")
    deviation = noise_multiplier * clipped.sensitivity()
    return NoisySum(torch.add(clipped.sum_P.double(), noise.standard_P, alpha=deviation))


def publish(sum_P: Tensor) -> NoisySum:
    """Release a sum as it is: the non-private reference, event NonPrivateDpEvent, epsilon infinite."""
    return NoisySum(sum_P)


def released_before(sum_P: Tensor) -> NoisySum:
    """Return a noisy sum that left the private side before, and was kept."""
    return NoisySum(sum_P)
