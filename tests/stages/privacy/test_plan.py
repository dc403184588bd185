"""A plan meets its target, barely; an impossible or silly one is said so."""

import dataclasses
import math
from functools import cache

import pytest

from stages.privacy.accounting import Target, epsilon_of
from stages.privacy.clipping_rule import Clipping
from stages.privacy.directions import Directions
from stages.privacy.events import event_from_json
from stages.privacy.plan import NOTHING_ELSE, Beside, Others, beside_of, read_plan
from stages.privacy.planning import noise_to_signal, plan_for, plan_private, warnings_of
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling

POPULATION = Population(name="people", public=False, max_units=1000, unit="patient")
SAMPLING = Sampling(steps=10, rate=0.1, expected_batch=100.0)


def target(**changes) -> Target:
    return Target(**{"relation": "add_or_remove_one", "epsilon": 3.0, "delta": 1e-5, **changes})


@cache
def private(others=NOTHING_ELSE, **changes):
    more = {"clipping": Clipping(1.0), "rows_per_unit": 1, "others": others}
    return plan_private(target(**changes), POPULATION, SAMPLING, **more)


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
def test_the_plan_meets_the_target_and_a_little_less_noise_would_not(relation):
    plan = private(relation=relation)
    assert plan.epsilon == epsilon_of([plan.event(10)], 1e-5, relation) <= 3.0
    less = dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier - 0.001)
    assert epsilon_of([less.event(10)], 1e-5, relation) > 3.0


def test_a_plan_survives_json_and_a_changed_form_is_refused():
    plan = private()
    assert read_plan(plan.to_json(), "plan.json") == plan
    with pytest.raises(ValueError, match="has version 4"):
        read_plan({**plan.to_json(), "version": 4}, "plan.json")
    with pytest.raises(KeyError, match="unknown keys"):
        read_plan({**plan.to_json(), "extra": 1}, "plan.json")


DIRECTIONS = Directions(count=4, perturbation=1e-3, seed=7)
PROFILE = Beside(stage="profile", split="train", rate=1.0, noise_multiplier=4.0)


def zeroth_order(noise, others=NOTHING_ELSE, **changes):
    return plan_for(
        "zeroth_order",
        target(**changes),
        POPULATION,
        SAMPLING,
        clipping=Clipping(1.0),
        rows_per_unit=1,
        others=others,
        directions=DIRECTIONS,
        noise=noise,
    )


def test_slopes_need_the_noise_that_gradients_need_and_the_plan_names_their_directions():
    plan = zeroth_order("gaussian")
    assert (plan.mechanism, plan.estimator, plan.directions) == ("gaussian", "zeroth_order", DIRECTIONS)
    assert plan.noise_multiplier == private().noise_multiplier
    assert read_plan(plan.to_json(), "plan.json") == plan
    assert noise_to_signal(plan, 10**6) == noise_to_signal(plan, 1) < noise_to_signal(private(), 10**6)


@pytest.mark.parametrize("delta", [0.0, 1e-5])
def test_laplace_noise_gives_a_pure_epsilon_by_its_formula(delta):
    plan = zeroth_order("laplace", delta=delta)
    pure = 10 * math.log(1 + 0.1 * (math.exp(1 / plan.noise_multiplier) - 1))
    assert plan.epsilon == pytest.approx(pure) and 2.99 < pure <= 3.0
    assert type(plan.event(10).event.event).__name__ == "LaplaceDpEvent"


def test_a_pure_epsilon_is_refused_where_a_gaussian_is_involved():
    with pytest.raises(ValueError, match="which Gaussian noise never gives: set estimator.kind"):
        private(delta=0.0)
    with pytest.raises(ValueError, match="but profile would add Gaussian noise"):
        zeroth_order("laplace", Others(charges=(PROFILE,), composition="sequential"), delta=0.0)
    both = zeroth_order("laplace", Others(charges=(PROFILE,), composition="sequential"))
    assert both.epsilon <= 3.0 and both.noise_multiplier > zeroth_order("laplace").noise_multiplier


def test_directions_go_with_zeroth_order_and_with_nothing_else():
    with pytest.raises(ValueError, match="and no other, looks along directions"):
        plan_for("zeroth_order", target(), POPULATION, SAMPLING, clipping=Clipping(1.0), rows_per_unit=1)


def test_a_delta_that_would_allow_publishing_a_unit_is_refused():
    with pytest.raises(ValueError, match="must be below 1 / population.max_units = 0.001"):
        private(delta=1e-3)


def test_a_budget_that_no_noise_meets_is_refused():
    with pytest.raises(ValueError, match="no noise multiplier"):
        private(epsilon=1e-12, delta=1e-15)


def test_training_without_privacy_is_refused_for_people_who_are_not_public():
    with pytest.raises(ValueError, match="not declared public"):
        plan_for("nonprivate", target(), POPULATION, SAMPLING, clipping=Clipping(1.0), rows_per_unit=1)


def test_silly_plans_are_warned_about():
    plan = private()
    assert warnings_of(plan, weights=100) == []
    generous = dataclasses.replace(plan, target_epsilon=20.0)
    assert any("protects little" in text for text in warnings_of(generous, weights=100))
    assert any("times the largest possible signal" in text for text in warnings_of(plan, weights=10**9))
    diluted = dataclasses.replace(plan, sampling=dataclasses.replace(SAMPLING, expected_batch=1000.0))
    assert any("expected_batch" in text for text in warnings_of(diluted, weights=100))


@pytest.mark.parametrize(
    ("steps", "rate", "batch"),
    [(0, 0.1, 1.0), (1, 0.0, 1.0), (1, 1.1, 1.0), (1, 0.1, 0.0), (1, 0.1, float("inf"))],
)
def test_sampling_that_describes_nothing_is_refused(steps, rate, batch):
    with pytest.raises(ValueError, match="sampling"):
        Sampling(steps=steps, rate=rate, expected_batch=batch)


def test_noise_is_found_for_what_the_whole_pass_spends():
    """Private choices made before training leave less for training, and the sum still meets the target."""
    choice = Beside(stage="profile", split="train", rate=1.0, noise_multiplier=4.0)
    others = Others(charges=(choice,), composition="parallel")
    alone, plan = private(), private(others=others)
    training = plan.event(10)
    assert plan.epsilon == epsilon_of([training, choice.event()], 1e-5, "add_or_remove_one") <= 3.0
    assert epsilon_of([training], 1e-5, "add_or_remove_one") < 3.0 - 0.1
    assert plan.noise_multiplier > alone.noise_multiplier
    less = dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier - 0.001)
    assert less.others.epsilon(less.event(10), target()) > 3.0
    assert read_plan(plan.to_json(), "plan.json") == plan


def test_held_out_units_are_spent_beside_training_only_where_splits_are_disjoint():
    figures = Beside(stage="evaluate", split="heldout", rate=1.0, noise_multiplier=4.0)
    parallel = private(others=Others(charges=(figures,), composition="parallel"))
    sequential = private(others=Others(charges=(figures,), composition="sequential"))
    assert parallel.noise_multiplier == private().noise_multiplier < sequential.noise_multiplier
    with pytest.raises(ValueError, match="under add_or_remove_one only"):
        private(relation="replace_one", others=Others(charges=(figures,), composition="parallel"))


def test_choices_that_spend_the_target_alone_are_refused_by_name():
    loud = Beside(stage="calibrate", split="train", rate=1.0, noise_multiplier=0.5)
    with pytest.raises(ValueError, match="private choices of calibrate alone spend epsilon"):
        private(others=Others(charges=(loud,), composition="parallel"))


def test_a_charge_that_is_no_noised_sum_is_refused():
    charge = {"stage": "profile", "split": "train", "event": {"class": "NonPrivateDpEvent"}}
    with pytest.raises(ValueError, match="stage profile charges .* no noised sum"):
        beside_of(charge)
    sampled = {"class": "PoissonSampledDpEvent", "sampling_probability": 0.25}
    event = {**sampled, "event": {"class": "GaussianDpEvent", "noise_multiplier": 2.0}}
    assert beside_of({**charge, "event": event}).event() == event_from_json(event)
