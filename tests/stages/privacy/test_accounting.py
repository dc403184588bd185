"""Epsilon equals published reference values, and what is not private has none."""

import math

import dp_accounting
import pytest

from stages.privacy.accounting import Target, composed_epsilon, cross_checks, epsilon_of, step_event
from stages.privacy.events import event_from_json, event_to_json


@pytest.mark.parametrize(
    ("noise_multiplier", "rate", "steps", "delta", "pld", "rdp", "prv", "replace_one"),
    [
        (0.8, 0.01, 1000, 1e-5, 3.14, 3.70, 3.15, 4.23),
        (1.0, 0.05, 400, 1e-5, 6.70, 7.42, 6.71, 10.62),
        (0.6, 0.001, 5000, 1e-6, 2.75, 3.63, 2.76, 2.90),
    ],
)
def test_reference_values(noise_multiplier, rate, steps, delta, pld, rdp, prv, replace_one):
    events = [step_event(rate, noise_multiplier, steps)]
    assert epsilon_of(events, delta, "add_or_remove_one") == pytest.approx(pld, abs=6e-3)
    checks = cross_checks(events, delta, "add_or_remove_one")
    assert checks["RDP"] == pytest.approx(rdp, rel=0.03) and checks["RDP"] > pld
    assert checks["PRV"] == pytest.approx(prv, abs=6e-3)
    assert epsilon_of(events, delta, "replace_one") == pytest.approx(replace_one, abs=6e-3)


def test_more_steps_spend_more_and_an_event_without_privacy_spends_everything():
    few, many = (epsilon_of([step_event(0.1, 1.0, steps)], 1e-5, "add_or_remove_one") for steps in (10, 20))
    twice = epsilon_of([step_event(0.1, 1.0, 10)] * 2, 1e-5, "add_or_remove_one")
    assert few < many == pytest.approx(twice, rel=1e-3)
    nothing = dp_accounting.NonPrivateDpEvent()
    assert math.isinf(epsilon_of([nothing], 1e-5, "add_or_remove_one"))
    assert math.isinf(epsilon_of([dp_accounting.ComposedDpEvent([nothing])], 1e-5, "add_or_remove_one"))
    assert epsilon_of([dp_accounting.NoOpDpEvent()], 1e-5, "add_or_remove_one") == 0


def test_a_check_that_does_not_apply_is_left_out():
    assert cross_checks([step_event(0.1, 1.0, 1)], 1e-5, "replace_one") == {}
    assert cross_checks([dp_accounting.NonPrivateDpEvent()], 1e-5, "add_or_remove_one") == {}


def test_splits_compose_in_parallel_or_in_sequence():
    events = {"train": [step_event(0.1, 1.0, 20)], "heldout": [dp_accounting.GaussianDpEvent(3.0)]}
    alone = [epsilon_of(group, 1e-5, "add_or_remove_one") for group in events.values()]
    together = epsilon_of([*events["train"], *events["heldout"]], 1e-5, "add_or_remove_one")
    assert composed_epsilon(events, 1e-5, "add_or_remove_one", "parallel") == max(alone)
    assert composed_epsilon(events, 1e-5, "add_or_remove_one", "sequential") == together > max(alone)
    with pytest.raises(ValueError, match="under add_or_remove_one only"):
        composed_epsilon(events, 1e-5, "replace_one", "parallel")


def test_events_survive_json():
    gaussian = dp_accounting.GaussianDpEvent(1.25)
    for event in (
        step_event(0.1, 1.5, 7),
        dp_accounting.ComposedDpEvent((gaussian, dp_accounting.NoOpDpEvent())),
        dp_accounting.PoissonSampledDpEvent(0.2, dp_accounting.LaplaceDpEvent(2.0)),
    ):
        read = event_from_json(event_to_json(event))
        assert read == event
        assert epsilon_of([read], 1e-5, "add_or_remove_one") > 0, "and is priced, whoever wrote it"


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"class": "os.system"},
        {"class": "MixtureOfGaussiansDpEvent", "standard_deviation": 1.0},
        {"class": "RepeatAndSelectDpEvent", "event": {"class": "NoOpDpEvent"}, "mean": 1.0, "shape": 1.0},
        {"class": "GaussianDpEvent"},
        {"class": "GaussianDpEvent", "noise_multiplier": "1"},
        {"class": "GaussianDpEvent", "noise_multiplier": True},
        {"class": "GaussianDpEvent", "noise_multiplier": -1.0},
        {"class": "GaussianDpEvent", "noise_multiplier": float("nan")},
        {"class": "GaussianDpEvent", "noise_multiplier": 1.0, "module_name": "os"},
        {"class": "SelfComposedDpEvent", "count": 1.5, "event": {"class": "NoOpDpEvent"}},
        {"class": "ComposedDpEvent", "events": {"class": "NoOpDpEvent"}},
    ],
)
def test_an_unknown_or_mistyped_event_is_refused(value):
    with pytest.raises(ValueError, match="privacy event"):
        event_from_json(value)


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (float("inf"), 1e-5), (1.0, -0.1), (1.0, 1.0)]
)
def test_a_target_that_promises_nothing_is_refused(epsilon, delta):
    with pytest.raises(ValueError, match="privacy"):
        Target(relation="add_or_remove_one", epsilon=epsilon, delta=delta)
