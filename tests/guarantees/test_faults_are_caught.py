"""Every planted fault is caught by who is meant to catch it, and nobody alarms on the sound system.

``python -m benchmarks.faults --json FILE`` prints the same as a table.
"""

import numpy as np
import pytest

from benchmarks.faults import FAULTS, REPETITIONS, SOUND, Fault, repeated
from benchmarks.white_box import CANARIES, GUESSES, Trial, audit_run
from stages.core.entry import quiet_accountants
from stages.privacy.one_run_bound import ceiling

quiet_accountants()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault) -> None:
    assert fault.caught(seed=1) is not None
    assert fault.catch(1) is None or fault.catcher in ("preflight", "audit command"), (
        "without it, its catcher says nothing (the last two plant what they look at)"
    )


@pytest.mark.parametrize("catcher", SOUND)
def test_nobody_alarms_on_the_sound_system(catcher: str) -> None:
    for look in SOUND[catcher]:
        assert look(1) is None


@pytest.mark.slow
@pytest.mark.parametrize("catcher", SOUND)
def test_nobody_alarms_on_the_sound_system_in_twenty_repetitions(catcher: str) -> None:
    assert repeated(catcher) == {"repetitions": REPETITIONS, "alarms": []}


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
@pytest.mark.parametrize("prune", ["all", "block", "magnitude", "random"])
def test_the_auditor_sees_the_sound_engine_and_never_more_than_it_claims(epsilon: float, prune: str) -> None:
    """Its bound is positive: what it says against nothing would be worth nothing."""
    found = audit_run(Trial(epsilon=epsilon, prune=prune), seed=3)
    assert 0.3 * epsilon < found.bound < epsilon
    assert found.bound < ceiling(2 * GUESSES, CANARIES, 1e-5)


def test_several_rows_and_steps_are_one_unit_to_the_auditor() -> None:
    bounds = [audit_run(trial, seed=4).bound for trial in (Trial(rows=4), Trial(steps=4, rate=0.5), Trial())]
    assert all(0.3 < bound < 2 for bound in bounds) and np.ptp(bounds) < 0.5
