"""One unit moves what is released by at most the clip, and the noise has the scale that is charged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import dp_accounting
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.privacy.clipping import clip_sum
from stages.privacy.noised_sum import NoisedMean, NoisedSum
from stages.privacy.stream import RunKey, Streams
from tests.guarantees.test_noise import are_independent, has_scale, is_gaussian

LAYERS = 4
MECHANISM = NoisedSum(rate=1.0, rows_per_unit=3, clip=0.7, noise_multiplier=1.5)
Unit = Sequence[Sequence[float]]
"""What each row of a unit says of each layer."""
HOSTILE = {
    "huge": [[1e200] * LAYERS],
    "too huge for a norm": [[1.7e308] * LAYERS],
    "infinite": [[math.inf, 0.0, 0.0, 0.0]],
    "nan": [[0.1, math.nan, 0.1, 0.1]],
    "a nan among many rows": [[1.0] * LAYERS] * 9 + [[math.nan] * LAYERS],
    "many rows": [[1.0] * LAYERS] * 50,
    "many rows that cancel but for one": [[1e9] * LAYERS, [-1e9] * LAYERS] * 9 + [[1.0] * LAYERS],
    "tiny": [[1e-300] * LAYERS],
    "zero": [[0.0] * LAYERS],
}


def streams(key: bytes = bytes(range(32)), fingerprint: str = "f") -> Streams:
    return Streams(RunKey(key), fingerprint, "profile")


def contributions(units: Sequence[Unit], mechanism: NoisedSum = MECHANISM) -> Tensor:
    """Return the mean of at most ``rows_per_unit`` rows of each unit, as the stages make it."""
    means = [torch.tensor(unit[: mechanism.rows_per_unit], dtype=torch.float64).mean(dim=0) for unit in units]
    return torch.stack(means) if means else torch.zeros(0, LAYERS, dtype=torch.float64)


def released(units: Sequence[Unit], mechanism: NoisedSum = MECHANISM) -> Tensor:
    return mechanism.release(contributions(units, mechanism), streams()).sum_P


def moves(sum_of: Callable[[Sequence[Unit]], Tensor], others: Sequence[Unit], unit: Unit) -> float:
    """Return the L2 distance by which one unit moves a sum; equal noise cancels."""
    with_it = sum_of([*others, unit])
    assert bool(with_it.isfinite().all())
    return float((with_it - sum_of(others)).norm())


OTHERS: list[Unit] = [[[-0.1, -0.2, -0.3, -0.4]], [[-0.5, 0.0, 0.0, 0.0], [0.0, -0.5, 0.0, 0.0]]]
BOUND = MECHANISM.clip * (1 + 1e-9)


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("others", [[], OTHERS], ids=["alone", "among others"])
def test_a_hostile_unit_moves_the_release_by_at_most_the_clip(unit, others):
    assert moves(released, others, unit) <= BOUND


@settings(deadline=None, max_examples=200)
@given(
    unit=st.lists(
        st.lists(
            st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -1.0, 1.0, 1e9, -1e9]),
            min_size=LAYERS,
            max_size=LAYERS,
        ),
        min_size=1,
        max_size=12,
    ),
    others=st.integers(0, 2),
    clip=st.floats(1e-3, 1e3),
    sigma=st.floats(0.5, 50),
)
def test_any_unit_moves_the_release_by_at_most_the_clip(unit, others, clip, sigma):
    mechanism = replace(MECHANISM, clip=clip, noise_multiplier=sigma)
    moved = moves(lambda units: released(units, mechanism), OTHERS[:others], unit)
    # the noise is added and taken away again in float64, and rounds
    assert moved <= clip * (1 + 1e-9) + 1e-13 * mechanism.deviation


def test_a_unit_without_hostile_values_is_counted():
    """Negative control of the two above: the sum is not zero whatever the units say."""
    assert moves(released, OTHERS, [[3.0, 4.0, 0.0, 0.0]]) == pytest.approx(MECHANISM.clip)
    assert moves(released, OTHERS, [[0.3, 0.4, 0.0, 0.0]]) == pytest.approx(0.5)


def clip_per_row_then_sum(units: Sequence[Unit]) -> Tensor:
    """Broken on purpose: a row is taken for a unit."""
    rows = [row for unit in units for row in unit]
    return clip_sum(torch.tensor(rows or [[0.0] * LAYERS], dtype=torch.float64), MECHANISM.clip).sum_P


def clip_per_layer(units: Sequence[Unit]) -> Tensor:
    """Broken on purpose: every layer has a clip of its own, and no bound holds of all of them together."""
    said = contributions(units)
    parts = [clip_sum(said[:, [layer]], MECHANISM.clip).sum_P for layer in range(LAYERS)]
    return torch.cat(parts)


def divide_by_the_private_count(units: Sequence[Unit]) -> Tensor:
    """Broken on purpose: the number of units divides the sum."""
    return clip_sum(contributions(units), MECHANISM.clip).sum_P / max(1, len(units))


def test_each_wrong_way_to_bound_a_unit_would_be_noticed():
    many = HOSTILE["many rows"]
    for broken in (clip_per_row_then_sum, clip_per_layer):
        assert moves(broken, OTHERS, many) > 1.5 * MECHANISM.clip
    one_sided: list[Unit] = [[[1.0] * LAYERS]] * 3
    public = moves(lambda units: released(units) / 4, one_sided, [[-1.0] * LAYERS])
    private = moves(divide_by_the_private_count, one_sided, [[-1.0] * LAYERS])
    assert public <= BOUND / 4 < 1.5 * MECHANISM.clip / 4 < private


def one_unit_at_a_time(units: Sequence[Unit], mechanism: NoisedSum, noise: Sequence[float]) -> list[float]:
    """Return the release by plain sums of Python floats."""
    parts: list[list[float]] = []
    for unit in units:
        rows = unit[: mechanism.rows_per_unit]
        mean = [math.fsum(row[layer] for row in rows) / len(rows) for layer in range(LAYERS)]
        norm = math.sqrt(math.fsum(value * value for value in mean))
        scale = 1.0 if norm == 0 else min(1.0, mechanism.clip / norm)
        parts.append([scale * value for value in mean])
    total = [math.fsum(part[layer] for part in parts) for layer in range(LAYERS)]
    return [
        value + mechanism.noise_multiplier * mechanism.clip * drawn
        for value, drawn in zip(total, noise, strict=True)
    ]


def test_the_release_is_that_of_a_slow_reference():
    dice = np.random.default_rng(0)
    units = [dice.normal(size=(dice.integers(1, 6), LAYERS)).tolist() for _ in range(40)]
    noise = streams().at("noise", 0, "sum").gaussian(LAYERS)
    expected = one_unit_at_a_time(units, MECHANISM, noise.tolist())
    assert released(units).tolist() == pytest.approx(expected, abs=1e-12)
    assert released(units).tolist() != pytest.approx(
        one_unit_at_a_time(units[1:], MECHANISM, noise), abs=1e-3
    )


SAMPLES = 200_000


def noise_of(sigma: float = MECHANISM.noise_multiplier, **of: object) -> np.ndarray:
    mechanism = replace(MECHANISM, noise_multiplier=sigma)
    nobody = torch.zeros(0, SAMPLES, dtype=torch.float64)
    return mechanism.release(nobody, streams(**of)).sum_P.numpy()


def test_the_noise_has_the_charged_scale_and_two_percent_off_is_noticed():
    """Power: +-0.74 % of the scale at 200,000 numbers; see test_noise."""
    assert has_scale(noise_of(), MECHANISM.deviation) and is_gaussian(noise_of(), MECHANISM.deviation)
    for wrong in (0.98, 1.02):
        assert not has_scale(noise_of(sigma=wrong * MECHANISM.noise_multiplier), MECHANISM.deviation)


def test_noise_is_of_the_key_and_the_inputs_alone():
    assert noise_of().tobytes() == noise_of().tobytes()
    assert are_independent(noise_of(), noise_of(key=bytes(32)))
    assert are_independent(noise_of(), noise_of(fingerprint="g"))
    assert not are_independent(noise_of(), noise_of()), "the control must fail"


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_the_event_is_what_is_executed(rate):
    mechanism = replace(MECHANISM, rate=rate)
    gaussian = dp_accounting.GaussianDpEvent(1.5)
    poisson = dp_accounting.PoissonSampledDpEvent(rate, gaussian)
    assert mechanism.event() == (gaussian if rate == 1 else poisson)
    assert mechanism.sampler == ("none" if rate == 1 else "poisson")
    rows = [np.arange(5 * unit, 5 * unit + 5) for unit in range(400)]
    joined = [len(mechanism.sample(rows, streams(fingerprint=str(draw)))) for draw in range(50)]
    deviation = math.sqrt(400 * 50 * rate * (1 - rate))
    assert abs(sum(joined) - 400 * 50 * rate) <= 4 * deviation
    assert rate == 1 or abs(sum(joined) - 400 * 50 * 1.1 * rate) > 4 * deviation, "ten percent off is noticed"


def test_a_units_rows_are_its_own_and_no_more_than_allowed():
    rows = [np.arange(5 * unit, 5 * unit + unit % 5 + 1) for unit in range(20)]
    units = MECHANISM.sample(rows, streams())
    assert [set(unit) <= set(own) for unit, own in zip(units, rows, strict=True)] == [True] * 20
    assert [len(unit) for unit in units] == [min(3, len(own)) for own in rows]
    fewer = MECHANISM.sample(rows[:19], streams())
    assert all(np.array_equal(one, other) for one, other in zip(units, fewer, strict=False))


def test_a_mean_is_divided_by_the_public_constant():
    mechanism = NoisedMean(rate=1.0, rows_per_unit=1, clip=1.0, noise_multiplier=2.0, expected_units=8.0)
    noised = mechanism.release(torch.zeros(0, 3), streams())
    assert mechanism.mean(noised) == [value / 8 for value in noised.sum_P.tolist()]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 0.0}, "rate must lie in"),
        ({"rate": 1.5}, "rate must lie in"),
        ({"rate": math.nan}, "rate must lie in"),
        ({"rows_per_unit": 0}, "rows_per_unit must be at least 1"),
        ({"clip": 0.0}, "clip must be positive and finite"),
        ({"clip": math.inf}, "clip must be positive and finite"),
        ({"noise_multiplier": 0.0}, "noise_multiplier must be positive and finite"),
        ({"noise_multiplier": math.nan}, "noise_multiplier must be positive and finite"),
        ({"expected_units": 0.0}, "expected_units must be positive"),
        ({"expected_units": math.inf}, "expected_units must be positive"),
    ],
)
def test_what_describes_no_mechanism_is_refused(change, said):
    values = {"rate": 1.0, "rows_per_unit": 1, "clip": 1.0, "noise_multiplier": 1.0, "expected_units": 8.0}
    with pytest.raises(ValueError, match=said):
        NoisedMean(**{**values, **change})
