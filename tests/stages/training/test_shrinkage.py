"""Singular values of noisy gradients are shrunk as Gavish and Donoho prove to be best."""

import pytest
import torch

from stages.privacy.noise import NoisySum
from stages.training.noisy_mean import NoisyMean
from stages.training.shrinkage import shrunk, shrunk_values

SHAPE = torch.Size((20, 60))
WHERE = slice(0, 1200)


def mean_of(matrix: torch.Tensor, deviation: float) -> NoisyMean:
    return NoisyMean.of(NoisySum(matrix.flatten()), 1.0, deviation)


def low_rank(strength: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    left, _ = torch.linalg.qr(torch.randn(20, 2, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(60, 2, generator=generator, dtype=torch.float64))
    return strength * left @ right.T


def test_a_low_rank_gradient_comes_out_closer_to_the_truth_and_noise_alone_as_nothing():
    noise = 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    truth = low_rank(3.0)
    found = shrunk(mean_of(truth + noise, 0.1), [(WHERE, SHAPE)]).mean_P.view(SHAPE)
    assert (found - truth).norm() < 0.6 * noise.norm()
    nothing = shrunk(mean_of(noise, 0.12), [(WHERE, SHAPE)]).mean_P
    assert float(nothing.norm()) == 0
    kept = shrunk(mean_of(noise, 0.05), [(WHERE, SHAPE)]).mean_P
    assert kept.norm() > 0, "noise that is said to be smaller than it is passes for signal"


def test_a_value_is_the_one_that_asymptotics_give_back():
    """A signal of singular value x is seen at sqrt((x + 1/x)(x + b/x)); what is best for it is below x."""
    ratio, signal = 0.5, torch.tensor([1.5, 4.0, 50.0], dtype=torch.float64)
    seen = ((signal + 1 / signal) * (signal + ratio / signal)).sqrt()
    found = shrunk_values(seen, ratio)
    overlap = (signal**4 - ratio) / (signal**2 * ((signal**2 + ratio) * (signal**2 + 1)).sqrt())
    assert torch.allclose(found, signal * overlap, rtol=1e-9)


def test_without_noise_and_outside_of_matrices_nothing_changes():
    mean = mean_of(low_rank(1.0), 0.0)
    assert shrunk(mean, [(WHERE, SHAPE)]) is mean
    vector = mean_of(torch.arange(4.0), 1.0)
    assert torch.equal(shrunk(vector, [(slice(0, 4), torch.Size((4,)))]).mean_P, vector.mean_P)


def test_only_a_noisy_mean_is_shrunk():
    with pytest.raises(TypeError, match="only a noisy mean is shrunk, got NoisySum"):
        shrunk(NoisySum(torch.ones(4)), [])  # type: ignore[arg-type]
