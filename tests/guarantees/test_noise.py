"""Noise has the planned scale and serves one sum only; each check would notice a fault of stated size.

Every check is a function that is given draws and says whether they pass. The test asks it about our noise and
about noise that is broken in the way the check is for. False alarms: at most 1 in
1,000 a check (the key is fixed, so there are none from run to run).
"""

from functools import partial

import numpy as np
import pytest
import torch

from benchmarks import detectors
from benchmarks.detectors import are_independent
from stages.privacy.clipping import ClippedSum
from stages.privacy.noise import add_noise
from stages.privacy.prepared_noise import PreparedNoise, StandardNoise
from stages.privacy.stream import RunKey, Stream, Streams

KEY = RunKey(bytes(range(32)))
SAMPLES = 200_000
SIZES = {"first.lora_A.weight": SAMPLES, "first.lora_B.weight": SAMPLES}
CLIP, SIGMA = 2.0, 1.5
SCALE = CLIP * SIGMA
has_scale = partial(detectors.has_scale, alarm=1e-3)
is_gaussian = partial(detectors.is_gaussian, alarm=1e-3)


class Nameless(Streams):
    """Broken on purpose: the name of a tensor is no part of its stream."""

    def at(self, purpose, step, name="", draw=0):
        return super().at(purpose, step, "", draw)


def streams(key: RunKey = KEY, fingerprint: str = "a") -> Streams:
    return Streams(key, fingerprint, "finetune")


def noise(step: int = 0, *, of: Streams | None = None, sigma: float = SIGMA) -> np.ndarray:
    """Return the noise of a step that drew nobody, for two tensors, shape (2, SAMPLES)."""
    zeros = ClippedSum(torch.zeros(2 * SAMPLES, dtype=torch.float64), CLIP)
    with PreparedNoise(of or streams(), SIZES, steps=step + 1) as prepared:
        return add_noise(zeros, sigma, prepared.at(step)).sum_P.numpy().reshape(2, SAMPLES)


def test_noise_has_the_planned_scale_and_one_two_percent_off_is_noticed():
    samples = noise()[0]
    assert has_scale(samples, SCALE) and is_gaussian(samples, SCALE)
    for wrong in (0.98, 1.02):
        assert not has_scale(noise(sigma=wrong * SIGMA)[0], SCALE)
        assert not has_scale(wrong * samples, SCALE)


def test_noise_is_gaussian_and_other_noise_of_that_scale_is_noticed():
    dice = np.random.default_rng(0)
    assert not is_gaussian(dice.uniform(-1, 1, SAMPLES) * np.sqrt(3) * SCALE, SCALE)
    assert not is_gaussian(dice.laplace(scale=SCALE / np.sqrt(2), size=SAMPLES), SCALE)
    mixture = dice.standard_normal(SAMPLES) * np.where(dice.random(SAMPLES) < 0.5, 0.8, np.sqrt(1.36)) * SCALE
    assert not is_gaussian(mixture, SCALE)


def test_noise_of_other_steps_keys_and_inputs_is_independent():
    here = noise()[0]
    others = (
        noise(1)[0],
        noise(of=streams(key=RunKey(bytes(32))))[0],
        noise(of=streams(fingerprint="b"))[0],
        noise(of=Streams(KEY, "a", "canaries"))[0],
    )
    for other in others:
        assert are_independent(here, other)


def test_a_counter_that_starts_again_is_noticed():
    """Half of the second draw is the first one: a counter that was reset in the middle."""
    first, second = noise()[0], noise(1)[0]
    reused = np.concatenate([first[: SAMPLES // 2], second[SAMPLES // 2 :]])
    assert are_independent(first, second) and not are_independent(first, reused)


def test_tensors_have_noise_of_their_own_and_correlated_ones_are_noticed():
    first, second = noise()
    assert are_independent(first, second)
    assert not are_independent(first, 0.03 * first + np.sqrt(1 - 0.03**2) * second)
    assert not are_independent(*noise(of=Nameless(KEY, "a", "finetune"))), "one stream for every tensor"


def test_two_releases_differ_and_equal_streams_on_both_are_noticed():
    """Equal noise on two releases cancels in their difference, and the private sums stand open."""
    assert RunKey.fresh() != RunKey.fresh()
    fresh = [noise(of=streams(RunKey(bytes([release] * 32))))[0] for release in (1, 2)]
    assert are_independent(*fresh) and has_scale(fresh[0] - fresh[1], np.sqrt(2) * SCALE)
    equal = [noise(of=streams())[0] for _ in range(2)]
    assert not are_independent(*equal) and not has_scale(equal[0] - equal[1], np.sqrt(2) * SCALE)


def test_neighbouring_coordinates_are_independent():
    samples = noise()[0]
    half_block = 2**14  # where the second number of every pair lies
    for shift in (1, 2, half_block, 2 * half_block, SAMPLES // 2):
        assert are_independent(samples[:-shift], samples[shift:])


def test_pairs_are_independent_and_a_pair_that_shares_its_radius_is_noticed():
    """Box and Muller's cosine and sine share a radius; were the angle fixed, squares would be correlated."""
    stream = streams().at("noise", 5, "w")
    radius = np.sqrt(-2 * np.log(stream.uniform(SAMPLES)))
    assert not are_independent(radius * np.cos(1.0), radius * np.sin(1.0))
    assert are_independent(*streams().at("noise", 6, "w").gaussian(2**15).reshape(2, 2**14))


def test_equal_streams_give_equal_bits_ahead_or_not():
    assert noise().tobytes() == noise().tobytes()
    with PreparedNoise(streams(), SIZES, steps=3) as prepared:
        ahead = [prepared.at(step).standard_P for step in range(3)]
    with PreparedNoise(streams(), SIZES, steps=3) as prepared:
        alone = prepared.at(2).standard_P
    assert torch.equal(ahead[2], alone) and not torch.equal(ahead[1], ahead[2])
    drawn = streams().at("noise", 2, "first.lora_B.weight").gaussian(SAMPLES)
    assert np.array_equal(alone.numpy()[SAMPLES:], drawn), "a tensor's noise hangs on its own name alone"


def test_noise_waits_on_the_cpu_and_is_given_where_the_sum_is(monkeypatch):
    drawn, honest = [], PreparedNoise._draw
    monkeypatch.setattr(
        PreparedNoise, "_draw", lambda self, step: drawn.append(honest(self, step)) or drawn[-1]
    )
    with PreparedNoise(streams(), {"w": 4}, steps=2, device="meta") as prepared:
        given = [prepared.at(step).standard_P for step in range(2)]
    assert [noise_P.device.type for noise_P in given] == ["meta", "meta"]
    assert [noise_P.device.type for noise_P in drawn] == ["cpu", "cpu"]


@pytest.mark.parametrize("steps", [(0, 0), (1, 0), (3,)])
def test_noise_never_serves_two_sums(steps):
    with PreparedNoise(streams(), {"w": 4}, steps=3) as prepared:
        for step in steps[:-1]:
            prepared.at(step)
        with pytest.raises(ValueError, match="no noise may serve two sums"):
            prepared.at(steps[-1])


def test_noise_is_added_to_the_sum_and_not_instead_of_it():
    clipped = ClippedSum(torch.full((SAMPLES,), 7.0), 1.0)
    with PreparedNoise(streams(), {"w": SAMPLES}, steps=1) as prepared:
        noisy = add_noise(clipped, 1.0, prepared.at(0)).sum_P
    assert abs(float(noisy.mean()) - 7.0) < 5 / np.sqrt(SAMPLES)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_noise_multiplier_that_hides_nothing_is_refused(sigma):
    with pytest.raises(ValueError, match="noise multiplier must be positive"):
        add_noise(ClippedSum(torch.zeros(1), 1.0), sigma, StandardNoise(torch.zeros(1)))


def test_noise_for_other_weights_is_refused():
    with pytest.raises(ValueError, match="noise for 1 weights does not fit 2"):
        add_noise(ClippedSum(torch.zeros(2), 1.0), 1.0, StandardNoise(torch.zeros(1, dtype=torch.float64)))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 2**15 - 1, 2**15, 2**15 + 1])
def test_any_number_of_draws_is_given(count):
    drawn = Stream(bytes(32)).gaussian(count)
    assert drawn.shape == (count,) and np.isfinite(drawn).all()


def test_a_key_and_noise_are_never_shown():
    assert KEY.secret.hex() not in repr(KEY) and "\\x01" not in repr(streams())
    assert "0.125" not in repr(StandardNoise(torch.tensor([0.125])))
