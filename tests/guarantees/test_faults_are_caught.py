"""Every planted fault is caught by who is meant to catch it, and nobody alarms on the sound system.

``python -m benchmarks.faults --json FILE`` prints the same as a table.
"""

from contextlib import nullcontext

import numpy as np
import pytest

from benchmarks.faults import AUDITED, FAULTS, SOUND, Fault, bounds_of, repeated
from benchmarks.white_box import Trial, audit_run
from stages.core.entry import quiet_accountants

quiet_accountants()


def at_length(fault: Fault) -> object:
    """Return a fault for the fast tier, or for the slow one where whoever catches it looks for long."""
    long = fault.name == "slopes clipped one by one"
    return pytest.param(fault, id=fault.name, marks=pytest.mark.slow if long else ())


@pytest.mark.parametrize("fault", [at_length(fault) for fault in FAULTS])
def test_a_planted_fault_is_caught_for_what_it_is(fault: Fault) -> None:
    said = fault.said(seed=1)
    assert fault.is_caught(said), said


@pytest.mark.slow
@pytest.mark.parametrize(
    "look", list(dict.fromkeys(fault.look for fault in FAULTS if fault.inject is not nullcontext))
)
def test_who_catches_a_fault_of_the_engine_says_nothing_of_the_sound_one(look) -> None:
    assert look(1) is None


@pytest.mark.parametrize("catcher", ["preflight", "audit command"])
def test_models_and_evidence_that_are_sound_are_not_accused(catcher: str) -> None:
    assert [look(1) for look in SOUND[catcher][0]] == [None]


@pytest.mark.slow
@pytest.mark.parametrize("trial", AUDITED, ids=str)
def test_the_auditor_never_finds_more_than_is_claimed_in_twenty_repetitions(trial: Trial) -> None:
    bounds = bounds_of(trial)["bounds"]
    assert 0 < bounds[0] <= bounds[-1] < trial.epsilon


@pytest.mark.slow
@pytest.mark.parametrize("catcher", SOUND)
def test_nobody_alarms_on_the_sound_system_in_twenty_repetitions(catcher: str) -> None:
    assert repeated(catcher)["alarms"] == []


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
@pytest.mark.parametrize("prune", ["all", "block", "magnitude", "random"])
def test_the_auditor_sees_the_sound_engine_and_never_more_than_it_claims(epsilon: float, prune: str) -> None:
    """Its bound is positive: what it says against nothing would be worth nothing."""
    assert 0.3 * epsilon < audit_run(Trial(epsilon=epsilon, prune=prune), seed=3).bound < epsilon


@pytest.mark.slow
def test_the_auditor_sees_zeroth_order_and_never_more_than_it_claims() -> None:
    assert 0.1 < audit_run(Trial(directions=2048), seed=3).bound < 2


@pytest.mark.slow
def test_several_rows_and_steps_are_one_unit_to_the_auditor() -> None:
    bounds = [audit_run(trial, seed=4).bound for trial in (Trial(rows=4), Trial(steps=4, rate=0.5), Trial())]
    assert all(0.3 < bound < 2 for bound in bounds) and np.ptp(bounds) < 0.5
