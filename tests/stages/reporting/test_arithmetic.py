"""The closed forms of the figures agree with simulation, and with what the methods state."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from stages.privacy.accounting import Target, epsilon_of
from stages.privacy.clipping import clip_sum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.directions import Directions, Distribution
from stages.privacy.plan import Plan
from stages.privacy.planning import noise_to_signal, plan_nonprivate, plan_private
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling
from stages.reporting.arithmetic import (
    chance_of_right_choice,
    epsilon_by_step,
    largest_signal_to_noise,
    most_detected,
    noise_energy_kept,
    noise_over_signal,
)

PUBLIC = Population(name="toy", public=True, max_units=100, unit="image")
TARGET = Target(relation="add_or_remove_one", epsilon=8.0, delta=1e-4)
SAMPLING = Sampling(steps=20, rate=0.1, expected_batch=10.0)


def private_plan() -> Plan:
    return plan_private(TARGET, PUBLIC, SAMPLING, clipping=Clipping(1.0), rows_per_unit=1)


def test_magnitude_pruning_keeps_nearly_all_noise() -> None:
    """The known arithmetic: 99.6 % of the energy at 80 %, 92.9 % at 50 %."""
    assert noise_energy_kept(0.8, 1) == pytest.approx(0.996, abs=5e-4)
    assert noise_energy_kept(0.5, 1) == pytest.approx(0.929, abs=5e-4)


@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_the_energy_kept_is_what_sorting_noise_keeps(block: int, keep: float) -> None:
    noise = np.random.default_rng(block).normal(size=(40_000, block))
    energy = np.sort((noise**2).sum(axis=1))[::-1]
    kept = energy[: round(keep * len(energy))].sum() / energy.sum()
    assert noise_energy_kept(keep, block) == pytest.approx(kept, abs=0.01)
    assert noise_energy_kept(keep * 0.5, block) != pytest.approx(kept, abs=0.01), "the control must fail"


@pytest.mark.parametrize(("ratio", "block", "steps"), [(0.3, 16, 1), (0.3, 16, 10), (1.0, 4, 1), (0.0, 8, 3)])
def test_the_chance_is_what_drawing_two_blocks_gives(ratio: float, block: int, steps: int) -> None:
    generator = np.random.default_rng(7)
    draws = (40_000, steps * block)
    signal = ((generator.normal(size=draws) + ratio) ** 2).sum(axis=1)
    noise = (generator.normal(size=draws) ** 2).sum(axis=1)
    chance = chance_of_right_choice(ratio, block, steps)
    assert chance == pytest.approx((signal > noise).mean(), abs=5 * math.sqrt(0.25 / 40_000))


@pytest.mark.slow
def test_the_curve_ends_at_the_plans_epsilon_and_never_falls() -> None:
    plan = private_plan()
    curve = epsilon_by_step(plan)
    assert curve[0]["steps"] == 1 and curve[-1] == {"steps": 20, "epsilon": plan.epsilon}
    assert 5 <= len(curve) <= 12
    assert [point["epsilon"] for point in curve] == sorted(point["epsilon"] for point in curve)
    second = curve[1]
    event = plan.event(int(second["steps"]))
    assert second["epsilon"] == epsilon_of([event], plan.delta, plan.relation)


def test_a_plan_without_noise_has_neither_curve_nor_ratio() -> None:
    plan = plan_nonprivate(TARGET, PUBLIC, SAMPLING, rows_per_unit=1)
    assert epsilon_by_step(plan) == []
    assert largest_signal_to_noise(plan, 100) is None


def test_the_largest_ratio_is_the_inverse_of_the_plans_warning() -> None:
    plan = private_plan()
    assert largest_signal_to_noise(plan, 100) == pytest.approx(1 / noise_to_signal(plan, 100))


def along(count: int, noise: Distribution) -> Plan:
    directions = Directions(count=count, perturbation=1e-3, seed=1)
    given = {"clipping": Clipping(2.0), "rows_per_unit": 1, "directions": directions, "noise": noise}
    return plan_private(TARGET, PUBLIC, SAMPLING, **given)


@pytest.mark.parametrize(("noise", "count"), [("gaussian", 1), ("gaussian", 9), ("laplace", 9)])
def test_the_ratio_of_slopes_is_what_drawing_noise_beside_equal_slopes_gives(
    noise: Distribution, count: int
) -> None:
    """A whole expected batch says the same, so much that it is clipped; its mean is as long as one unit's."""
    plan = along(count, noise)
    assert plan.clip is not None and plan.noise_multiplier is not None
    slopes_UK = torch.zeros(int(plan.sampling.expected_batch), count, dtype=torch.float64)
    slopes_UK[:, 0] = 100.0
    norm = "l2" if noise == "gaussian" else "l1"
    signal = clip_sum(slopes_UK, plan.clip, rule="flat", norm=norm).sum_P.norm()
    draw = getattr(np.random.default_rng(5), {"gaussian": "normal"}.get(noise, noise))
    drawn = draw(scale=plan.noise_multiplier * plan.clip, size=(100_000, count))
    length = math.sqrt((drawn**2).sum(axis=1).mean())
    assert noise_over_signal(plan, 100) == pytest.approx(length / float(signal), rel=0.02)


def test_a_largest_ratio_of_weights_is_not_told_where_noise_lies_along_directions() -> None:
    assert largest_signal_to_noise(along(9, "gaussian"), 100) is None
    assert noise_over_signal(private_plan(), 100) == noise_to_signal(private_plan(), 100)


@pytest.mark.parametrize("noise_multiplier", [0.8, 2.0])
def test_no_test_of_one_gaussian_finds_more_than_is_said(noise_multiplier: float) -> None:
    """The best test (Neyman and Pearson) finds Phi(1 / sigma - z) where it wrongly accuses Phi(-z)."""
    once = Sampling(steps=1, rate=1.0, expected_batch=10.0)
    blank = plan_nonprivate(TARGET, PUBLIC, once, rows_per_unit=1)
    given = replace(blank, mechanism="gaussian", noise_multiplier=noise_multiplier)
    rates = (0.001, 0.01, 0.05, 0.1, 0.5)
    for share, most in most_detected(given, rates).items():
        best = norm.cdf(1 / noise_multiplier - norm.isf(share))
        assert best <= most <= 1.35 * best + 0.01
    less = most_detected(replace(given, noise_multiplier=1.5 * noise_multiplier), rates)
    assert any(less[share] < norm.cdf(1 / noise_multiplier - norm.isf(share)) for share in rates), (
        "the control, of more noise, must be caught"
    )


def test_without_noise_nothing_is_ruled_out() -> None:
    assert most_detected(plan_nonprivate(TARGET, PUBLIC, SAMPLING, rows_per_unit=1), (0.01,)) == {}
