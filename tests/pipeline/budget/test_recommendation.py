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
@given(st.lists(OPTIONS, min_size=1, max_size=12), st.floats(0.1, 3), st.floats(0.1, 10))
def test_the_recommendation_is_what_trying_all_finds(options: list[Option], hours: float, gib: float) -> None:
    best, least = None, math.inf
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
    found = recommend(options, Limits(hours=hours, gib=gib), WEIGHTS)
    assert (None if found.option is None else found.option.work) == best
    assert found.reasons


def test_a_single_step_is_not_recommended_for_being_the_least_noisy_step() -> None:
    one, many = option(100, 1, 1.0), option(100, 64, 3.0)
    assert one.of_a_step(WEIGHTS) < many.of_a_step(WEIGHTS)
    assert recommend([one, many], ANY, WEIGHTS).option is many


def test_little_less_noise_is_not_worth_twice_the_work() -> None:
    cheap, dear = option(500, 40, 1.0), option(1000, 40, 1.96)
    found = recommend([cheap, dear], ANY, WEIGHTS)
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
    found = recommend([small, large], limits, WEIGHTS)
    assert found.option is small
    assert any(reason.startswith(said) for reason in found.reasons)


def test_where_only_the_question_limits_the_reason_says_so() -> None:
    found = recommend([option(100, 40, 1.0), option(500, 40, 1.0)], ANY, WEIGHTS)
    assert found.reasons[-1] == (
        "limited by what was asked about: larger batches and more steps were not looked at"
    )
    whole = recommend([option(500, 40, 1.0), option(1000, 40, 1.0)], ANY, WEIGHTS)
    assert whole.reasons[-1] == "limited by the units: every one joins each step, so no batch is larger"


def test_where_nothing_can_be_run_nothing_is_recommended_and_the_ledger_is_quoted() -> None:
    refused = option(100, 40, 1.0, allowed=Allowed(0, "over the limit of population 'people'"))
    found = recommend([refused], ANY, WEIGHTS)
    assert found.option is None
    assert found.reasons == (
        "no option can be run: each is beyond the ledger",
        "the ledger says: over the limit of population 'people'",
    )
