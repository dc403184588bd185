"""However many ask at once, the ledger answers one after the other."""

from ledger_acts import claim, key, reserve, settle_or_abandon, span
from ledgers import PEOPLE
from processes import at_once

from stages.ledger.ledger import Ledger
from stages.privacy.history import history_of
from stages.privacy.totals import totals_of

MANY = 64


def kinds() -> list[str]:
    return [entry.kind for entry in Ledger.load().entries(PEOPLE.name)]


def test_of_64_that_reserve_a_tenth_at_once_exactly_ten_succeed(place: str) -> None:
    """The ledger is not there before: they make it, too."""
    said = at_once(reserve, [(number,) for number in range(MANY)])
    refused = [answer for answer in said if answer != "reserve"]
    assert len(said) == MANY and len(said) - len(refused) == 10, said
    assert all("ValueError: over the limit of population 'people'" in answer for answer in refused), refused
    assert kinds() == ["open", *["reserve"] * 10]
    found = totals_of(history_of(PEOPLE.name, Ledger.load().entries(PEOPLE.name)))
    assert found.limit.admits(found.reserved) and found.remaining < found.reserved / 10


def test_those_who_ask_for_the_same_release_get_one(place: str) -> None:
    assert at_once(reserve, [(1,)] * 16) == ["reserve"] * 16
    assert kinds() == ["open", "reserve"]


def test_a_release_that_is_settled_and_abandoned_at_once_is_one_of_them(place: str) -> None:
    reserve(1)
    said = at_once(settle_or_abandon, [(number,) for number in range(16)])
    won = kinds()[2]
    assert kinds() == ["open", "reserve", won] and won in ("settle", "abandon")
    assert said.count(won) == 8
    assert all("ValueError: release" in answer for answer in said if answer != won)


def test_those_who_ask_for_a_key_for_the_first_time_at_once_get_one_key(place: str) -> None:
    assert len(set(at_once(key, [()] * 16))) == 1


def test_a_unit_that_is_claimed_at_once_gets_one_population(place: str) -> None:
    said = at_once(claim, [(number,) for number in range(16)])
    won = [answer for answer in said if answer.isdigit()]
    assert len(won) == 1 and Ledger.load().populations() == [f"people {won[0]}"]
    assert all("belong to another declared population" in answer for answer in said if answer not in won)


def test_control_processes_do_run_at_once() -> None:
    spans = [tuple(map(float, answer.split())) for answer in at_once(span, [()] * 16)]
    assert max(start for start, _ in spans) < min(end for _, end in spans)
