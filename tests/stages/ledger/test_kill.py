"""Killed at whichever call of the system, the ledger loses nothing it confirmed and counts nothing twice."""

import sys

import pytest
from ledger_acts import reserve
from ledger_kills import sweep, sweep_server
from processes import at_once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ptrace is Linux's")


def swept(act: str, given: tuple, step: int) -> tuple[int, int]:
    """Return how many kills an act survived, and how many of them found it done."""
    (said,) = at_once(sweep, [(act, given, step)])
    if "lets no process be traced" in said:
        pytest.skip(said)
    assert said.replace(" ", "").isdigit(), said
    kills, done = map(int, said.split())
    return kills, done


def prepare(act: str) -> None:
    """Bring the ledger to where an act makes a difference."""
    if act in ("settle", "abandon"):
        reserve(1)
    elif act != "reserve":
        reserve(2)


GIVEN = {"reserve": (1,), "settle": (1,), "abandon": (1,), "register": (), "key": ()}


@pytest.mark.parametrize(
    ("act", "step"),
    [
        ("reserve", 41),
        ("settle", 13),
        *(pytest.param(act, 13, marks=pytest.mark.slow) for act in ("abandon", "register", "key")),
    ],
)
def test_an_act_that_is_killed_at_some_calls_is_done_or_not_and_is_done_once(act: str, step: int) -> None:
    """The first reservation makes the ledger, too."""
    prepare(act)
    kills, done = swept(act, GIVEN[act], step)
    assert kills >= 5 and done < kills


@pytest.mark.slow
@pytest.mark.parametrize(("act", "step"), [("settle", 1), ("reserve", 3), ("register", 5)])
def test_an_act_that_is_killed_at_any_call_is_done_or_not_and_is_done_once(act: str, step: int) -> None:
    prepare(act)
    kills, done = swept(act, GIVEN[act], step)
    assert kills >= 50 and 0 < done < kills / 2, "done is only what was killed after it was on disk"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_server_free_for_the_next(postgresql, monkeypatch) -> None:
    monkeypatch.setenv("DUALPRIV_LEDGER", postgresql.new_place())
    reserve(1000)
    (said,) = at_once(sweep_server, [(60, 7)])
    assert said.isdigit() and int(said) >= 5, said


def test_control_two_transactions_are_told_from_one() -> None:
    reserve(9)
    (said,) = at_once(sweep, [("reserve_two", (), 7)])
    if "lets no process be traced" in said:
        pytest.skip(said)
    assert "AssertionError: killed before call" in said
