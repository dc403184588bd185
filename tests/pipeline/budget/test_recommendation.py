"""What is recommended is what trying every option finds, and the reason says what stood in the way."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.budget.books import Allowed
from pipeline.budget.options import Option
from pipeline.budget.recommendation import SLACK, Limits, recommend
from stages.privacy.plan import NOTHING_ELSE, VERSION, Plan
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling

ANY = Limits(hours=None, gib=None)
WEIGHTS = 10_000


def plan(batch: int, steps: int, noise_multiplier: float) -> Plan:
    return Plan(
        version=VERSION,
        population=Population(name="people", public=False, max_units=1000, unit="person"),
        relation="add_or_remove_one",
        target_epsilon=4.0,
        delta=1e-5,
        mechanism="gaussian",
        estimator="gradient",
        directions=None,
        sampler="poisson",
        sampling=Sampling(steps=steps, rate=batch / 1000, expected_batch=float(batch)),
        rows_per_unit=1,
        clip=1.0,
        clip_rule="flat",
        clip_groups="whole",
        noise_multiplier=noise_multiplier,
        others=NOTHING_ELSE,
        accountant="none asked",
        epsilon=4.0,
    )


def option(batch: int, steps: int, noise_multiplier: float, **changes: Any) -> Option:
    usual: dict[str, Any] = {"seconds": 1.0, "peak_gib": 1.0, "allowed": Allowed(None, None)}
    own = {"batch": batch, "steps": steps, "plan": plan(batch, steps, noise_multiplier), "spent": ()}
    return Option(**own, **usual | changes)


OPTIONS = st.builds(
    option,
    batch=st.sampled_from([10, 20, 50, 500, 1000]),
    steps=st.integers(1, 100),
    noise_multiplier=st.floats(0.5, 5),
    seconds=st.floats(1, 10_000),
    peak_gib=st.floats(0.1, 10),
    allowed=st.sampled_from([Allowed(None, None), Allowed(3, None), Allowed(0, "over the limit")]),
)


@settings(deadline=None)
@given(st.lists(OPTIONS, min_size=1, max_size=12), st.floats(0.1, 3), st.floats(0.1, 10), st.integers(1, 100))
def test_the_recommendation_is_what_trying_all_finds(
    options: list[Option], hours: float, gib: float, configured: int
) -> None:
    tried = options
    best, least, fewest = None, math.inf, 1
    for each in options:
        if each.allowed.passes != 0 and each.seconds <= 3600 * hours and each.peak_gib <= gib:
            if each.steps <= configured:
                fewest = max(fewest, each.steps)
    options = [each for each in options if each.steps >= fewest]
    for each in options:
        if each.allowed.passes != 0 and each.seconds <= 3600 * hours and each.peak_gib <= gib:
            assert each.plan.noise_multiplier is not None
            noise = each.plan.noise_multiplier * WEIGHTS**0.5 * each.steps**0.5
            least = min(least, noise / (each.batch * each.steps))
    for each in options:
        if each.allowed.passes != 0 and each.seconds <= 3600 * hours and each.peak_gib <= gib:
            assert each.plan.noise_multiplier is not None
            noise = each.plan.noise_multiplier * WEIGHTS**0.5 * each.steps**0.5
            near = noise / (each.batch * each.steps) <= (1 + SLACK) * least * (1 + 1e-12)
            if near and (best is None or each.batch * each.steps < best):
                best = each.batch * each.steps
    found = recommend(tried, Limits(hours=hours, gib=gib), WEIGHTS, configured)
    assert (None if found.option is None else found.option.work) == best
    assert found.reasons


def test_a_single_step_is_not_recommended_for_being_the_least_noisy_step() -> None:
    one, many = option(100, 1, 1.0), option(100, 64, 3.0)
    assert one.of_a_step(WEIGHTS) < many.of_a_step(WEIGHTS)
    assert recommend([one, many], ANY, WEIGHTS, 1).option is many


def whole(steps: int) -> Option:
    """Every unit joins each step: the same noise over the run's signal in any number of steps."""
    return option(1000, steps, math.sqrt(steps))


@pytest.mark.parametrize(
    ("steps", "configured", "taken"),
    [([1, 20, 40, 80], 40, 40), ([1, 20, 80], 40, 20), ([1, 20], 40, 20), ([80, 160], 40, 80)],
)
def test_among_equals_no_step_is_saved_below_those_of_params(
    steps: list[int], configured: int, taken: int
) -> None:
    found = recommend([whole(number) for number in steps], ANY, WEIGHTS, configured)
    assert found.option is not None and found.option.steps == taken
    said = f"not fewer than {taken} steps, by sampling.steps of params.yaml: batch 1000 in 1 step would have"
    assert [reason.startswith(said) for reason in found.reasons].count(True) == (1 in steps)


def test_slack_still_trades_the_batch_at_the_steps_of_params() -> None:
    cheap = option(960, 40, math.sqrt(40))
    found = recommend([whole(1), cheap, whole(40)], ANY, WEIGHTS, 40)
    assert found.option is cheap
    assert "at 96% of the work" in found.reasons[0]
    assert "would have 0.1 at 3% of the work, but this figure does not see" in found.reasons[1]


def test_where_the_steps_of_params_do_not_fit_the_next_smaller_number_is_taken() -> None:
    options = [whole(1), whole(20), option(1000, 40, math.sqrt(40), peak_gib=3.0)]
    found = recommend(options, Limits(hours=None, gib=2.0), WEIGHTS, 40)
    assert found.option is options[1]


def test_little_less_noise_is_not_worth_twice_the_work() -> None:
    cheap, dear = option(500, 40, 1.0), option(1000, 40, 1.96)
    found = recommend([cheap, dear], ANY, WEIGHTS, 40)
    assert found.option is cheap
    assert "within 5% of the least that fits (batch 1000, 40 steps" in found.reasons[0]
    assert "at 50% of the work" in found.reasons[0]


@pytest.mark.parametrize(
    ("limits", "changes", "said"),
    [
        (Limits(hours=1.0, gib=None), {"seconds": 3601.0}, "limited by the time limit of 1 h: batch 1000"),
        (Limits(hours=None, gib=2.0), {"peak_gib": 2.1}, "limited by the memory limit of 2 GiB: batch 1000"),
        (ANY, {"allowed": Allowed(0, "over")}, "limited by the ledger: batch 1000"),
    ],
)
def test_the_reason_names_the_limit_that_stood_in_the_way(
    limits: Limits, changes: dict[str, Any], said: str
) -> None:
    small, large = option(100, 40, 1.0), option(1000, 40, 1.0, **changes)
    found = recommend([small, large], limits, WEIGHTS, 40)
    assert found.option is small
    assert any(reason.startswith(said) for reason in found.reasons)


def test_where_only_the_question_limits_the_reason_says_so() -> None:
    found = recommend([option(100, 40, 1.0), option(500, 40, 1.0)], ANY, WEIGHTS, 40)
    assert found.reasons[-1] == (
        "limited by what was asked about: larger batches and more steps were not looked at"
    )
    all_units = recommend([option(500, 40, 1.0), option(1000, 40, 1.0)], ANY, WEIGHTS, 40)
    assert all_units.reasons[-1] == "limited by the units: every one joins each step, so no batch is larger"


def test_where_nothing_can_be_run_nothing_is_recommended_and_the_ledger_is_quoted() -> None:
    refused = option(100, 40, 1.0, allowed=Allowed(0, "over the limit of population 'people'"))
    found = recommend([refused], ANY, WEIGHTS, 40)
    assert found.option is None
    assert found.reasons == (
        "no option can be run: each is beyond the ledger",
        "the ledger says: over the limit of population 'people'",
    )
