"""Noise has the planned scale and is independent; each test would notice a fault of stated size."""

import numpy as np
import pytest
import torch
from scipy import stats

from stages.privacy.clipping import ClippedSum
from stages.privacy.noise import add_noise
from stages.privacy.stream import RunKey, Streams

KEY = RunKey(bytes(range(32)))
SAMPLES = 200_000


def noise(
    step: int = 0, *, key: RunKey = KEY, fingerprint: str = "a", clip: float = 2.0, sigma: float = 1.5
) -> np.ndarray:
    zeros = ClippedSum(torch.zeros(SAMPLES, dtype=torch.float64), clip)
    return add_noise(zeros, sigma, Streams(key, fingerprint, "finetune").at("noise", step)).sum_P.numpy()


def test_noise_is_gaussian_of_the_planned_scale_and_two_percent_less_is_noticed():
    samples = noise()
    assert stats.kstest(samples, stats.norm(scale=3.0).cdf).pvalue > 1e-3
    assert stats.kstest(samples, stats.norm(scale=3.0 * 0.98).cdf).pvalue < 1e-3
    low, high = stats.chi2.ppf([5e-4, 1 - 5e-4], SAMPLES)
    assert low < (samples**2).sum() / 9.0 < high
    assert not low < ((0.98 * samples) ** 2).sum() / 9.0 < high


def test_streams_of_other_steps_keys_and_inputs_are_uncorrelated_and_a_reused_one_is_noticed():
    bound = 5 / np.sqrt(SAMPLES)
    here = noise()
    for other in (noise(1), noise(key=RunKey(bytes(32))), noise(fingerprint="b")):
        assert abs(np.corrcoef(here, other)[0, 1]) < bound
    assert abs(np.corrcoef(here, noise())[0, 1]) > bound


def test_neighbouring_coordinates_are_uncorrelated():
    samples = noise()
    bound = 5 / np.sqrt(SAMPLES)
    half = SAMPLES // 2
    for shift in (1, 2, half):
        assert abs(np.corrcoef(samples[:-shift], samples[shift:])[0, 1]) < bound
    assert abs(np.corrcoef(samples[:half] ** 2, samples[half:] ** 2)[0, 1]) < 5 / np.sqrt(half)


def test_equal_streams_give_equal_bits():
    assert noise().tobytes() == noise().tobytes()


def test_noise_is_added_to_the_sum_and_not_instead_of_it():
    clipped = ClippedSum(torch.full((SAMPLES,), 7.0), 1.0)
    noisy = add_noise(clipped, 1.0, Streams(KEY, "a", "finetune").at("noise", 0)).sum_P
    assert abs(float(noisy.mean()) - 7.0) < 5 / np.sqrt(SAMPLES)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_noise_multiplier_that_hides_nothing_is_refused(sigma):
    with pytest.raises(ValueError, match="noise multiplier must be positive"):
        add_noise(ClippedSum(torch.zeros(1), 1.0), sigma, Streams(KEY, "a", "finetune").at("noise", 0))


def test_a_key_is_never_shown():
    assert KEY.secret.hex() not in repr(KEY) and "\\x01" not in repr(Streams(KEY, "a", "finetune"))
