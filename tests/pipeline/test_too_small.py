"""What is too small for differential privacy is said, with its reason, exactly where its criterion holds."""

import math
from dataclasses import replace
from typing import Any

import numpy
import pytest
from dp_accounting import dp_event, pld
from scipy.optimize import brentq
from scipy.stats import norm

from pipeline.too_small import (
    delta_too_large,
    epsilon_that_protects_nothing,
    guess_bound,
    noise_over_signal,
    percent,
    rows_beyond,
    too_few_units,
    warnings_before,
)
from stages.privacy.accounting import Target
from stages.privacy.clipping_rule import Clipping
from stages.privacy.directions import Directions, Distribution
from stages.privacy.plan import Plan
from stages.privacy.planning import plan_private
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling

PEOPLE = Population(name="people", public=False, max_units=1000, unit="person")
TARGET = Target(relation="add_or_remove_one", epsilon=4.0, delta=1e-5)


def whole_of(target: Target, units: int, steps: int = 1) -> Plan:
    """Return the plan of steps that look at every unit."""
    return plan_private(
        target,
        replace(PEOPLE, max_units=units),
        Sampling(steps=steps, rate=1.0, expected_batch=float(units)),
        clipping=Clipping(1.0, "flat", "whole"),
        rows_per_unit=1,
    )


def analytic_noise(epsilon: float, delta: float) -> float:
    """Return the noise multiplier of one Gaussian (Balle and Wang 2018, Theorem 8)."""

    def excess(sigma: float) -> float:
        half, far = 1 / (2 * sigma), epsilon * sigma
        return float(norm.cdf(half - far) - math.exp(epsilon) * norm.cdf(-half - far) - delta)

    return float(brentq(excess, 0.05, 100))


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_too_few_units_is_said_just_where_the_closed_form_exceeds_one(epsilon: float) -> None:
    target = replace(TARGET, epsilon=epsilon)
    whole = whole_of(target, 1000)
    edge = (1000 / analytic_noise(epsilon, 1e-5)) ** 2  # weights at which the noise equals all signal
    assert too_few_units(whole, int(0.98 * edge), PEOPLE) is None
    said = too_few_units(whole, int(1.05 * edge), PEOPLE)
    assert said is not None and said.startswith("population.max_units 1000 is too small to be useful: ")
    wanted = int(said.partition("about ")[2].split()[0])
    assert too_few_units(whole_of(target, wanted), int(1.05 * edge), PEOPLE) is None


def slopes_of(count: int, noise: Distribution, units: float) -> Plan:
    """Return the plan of one zeroth-order step that looks at every unit."""
    return plan_private(
        TARGET,
        PEOPLE,
        Sampling(steps=1, rate=1.0, expected_batch=units),
        clipping=Clipping(1.0, "flat", "whole"),
        rows_per_unit=1,
        directions=Directions(count=count, perturbation=1e-3, seed=0),
        noise=noise,
    )


@pytest.mark.parametrize(("noise", "draw"), [("gaussian", numpy.random.Generator.normal),
                                             ("laplace", numpy.random.Generator.laplace)])  # fmt: skip
def test_the_noise_of_slopes_counts_them_and_no_weights(noise: Distribution, draw: Any) -> None:
    """Against drawn noise: its root mean square norm over 16 slopes, the largest clipped mean being 1."""
    plan = slopes_of(16, noise, 1000.0)
    drawn = draw(numpy.random.default_rng(0), 0.0, plan.noise_multiplier, (100_000, 16)) / 1000
    norm_of_16 = math.sqrt((drawn**2).sum(axis=1).mean())
    assert noise_over_signal(plan, 500) == pytest.approx(norm_of_16, rel=0.01)
    assert noise_over_signal(plan, 5) == noise_over_signal(plan, 500)


def test_too_few_units_for_slopes_asks_for_no_fewer_weights() -> None:
    many, one = (too_few_units(slopes_of(count, "laplace", 0.1), 500, PEOPLE) for count in (16, 1))
    assert many is not None and "the noise on 16 slopes a step would be" in many
    assert "units, fewer directions or a larger epsilon would be needed" in many
    assert one is not None and "the noise on one slope a step would be" in one
    assert "units or a larger epsilon would be needed" in one
    assert "weights" not in many + one


def test_more_steps_of_all_units_do_not_repair_too_few() -> None:
    one, many = (whole_of(TARGET, 1000, steps).noise_multiplier for steps in (1, 25))
    assert one is not None and many is not None
    assert many / math.sqrt(25) == pytest.approx(one, rel=2e-3)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_guess_bound_holds_for_the_best_guess_about_a_gaussian(epsilon: float) -> None:
    """The best guess about N(0, sigma) against N(1, sigma) is right in Phi(1 / (2 sigma)) of cases."""
    accountant = pld.PLDAccountant()
    sigma = 3.0 / epsilon
    accountant.compose(dp_event.GaussianDpEvent(sigma))
    for delta in (1e-9, 1e-5, 1e-2):
        assert norm.cdf(1 / (2 * sigma)) <= guess_bound(accountant.get_epsilon(delta), delta)


def test_the_guess_bound_is_reached_by_randomised_response() -> None:
    """Which tells the truth with chance e^epsilon / (1 + e^epsilon), and is epsilon-DP."""
    for epsilon in (0.0, 1.0, 3.0):
        assert guess_bound(epsilon, 0.0) == pytest.approx(math.exp(epsilon) / (1 + math.exp(epsilon)))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0, 4.0, 8.0, 10.0, 15.0])
def test_a_bound_in_percent_is_never_below_the_bound_and_never_certainty(epsilon: float) -> None:
    bound = guess_bound(epsilon, 1e-5)
    said = float(percent(bound).removesuffix("%"))
    assert 100 * bound <= said < 100
    assert said - 100 * bound <= (100 - 100 * bound) / 5, "digits enough to tell it from the next"


def test_an_epsilon_that_protects_nothing_is_called_so() -> None:
    assert epsilon_that_protects_nothing(replace(TARGET, epsilon=10.0)) is None
    said = epsilon_that_protects_nothing(replace(TARGET, epsilon=12.0))
    assert said is not None and said.startswith("epsilon 12 protects nothing: ") and "99.99939%" in said


def test_a_delta_near_one_over_the_units_is_warned_of_and_one_at_it_refused() -> None:
    assert delta_too_large(replace(TARGET, delta=1e-4), PEOPLE) is None
    said = delta_too_large(replace(TARGET, delta=2e-4), PEOPLE)
    assert said is not None and "of 1000 units 0.2 would come out on average; take 0.0001 or less" in said
    with pytest.raises(ValueError, match="must be below 1 / population.max_units"):
        delta_too_large(replace(TARGET, delta=1e-3), PEOPLE)


def test_rows_of_a_unit_are_asked_about_where_nobody_may_count_them() -> None:
    asked = rows_beyond(2, None)
    assert asked is not None and asked.startswith("does any unit have more than 2 rows?")
    assert rows_beyond(2, 2) is None
    known = rows_beyond(2, 5)
    assert known is not None and known.startswith("a unit has 5 rows, and a step looks at")


def test_what_is_sound_is_not_warned_of() -> None:
    assert warnings_before(TARGET, PEOPLE, whole_of(TARGET, 1000), 1000) == []
