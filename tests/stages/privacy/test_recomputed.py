"""Prices are shown side by side, and one that disagrees with the deciding accountant is an error."""

import pytest
from dp_accounting import GaussianDpEvent, NonPrivateDpEvent

from stages.privacy.accounting import step_event
from stages.privacy.recomputed import Priced, disagreements, priced

STEPS = step_event(0.1, 1.5, 10)


def test_every_valid_accountant_is_beside_the_deciding_one() -> None:
    price = priced("training", [STEPS], 1e-5, "add_or_remove_one")
    assert set(price.checks) == {"RDP", "PRV"} and price.accountant.endswith("PLD")
    assert list(disagreements([price])) == []
    replaced = priced("training", [STEPS], 1e-5, "replace_one")
    assert replaced.checks == {} and replaced.epsilon > price.epsilon


@pytest.mark.parametrize(("name", "share"), [("RDP", 0.9), ("RDP", 4.0), ("PRV", 0.9), ("PRV", 1.2)])
def test_a_check_beyond_the_known_gap_is_an_error(name: str, share: float) -> None:
    found = priced("training", [STEPS], 1e-5, "add_or_remove_one")
    wrong = Priced(**{**vars(found), "checks": {name: share * found.epsilon}})
    (finding,) = disagreements([wrong])
    assert finding.severity == "error" and f"training: {name} gives epsilon" in finding.problem


def test_no_privacy_is_no_number() -> None:
    price = priced("training", [NonPrivateDpEvent()], 1e-5, "add_or_remove_one")
    assert price.to_json()["epsilon"] is None and price.checks == {} and not list(disagreements([price]))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (GaussianDpEvent(1e-9), "takes? for ever"),
        (step_event(0.1, 1.5, 10**9), "repetitions"),
        (step_event(2.0, 1.5, 1), "sampling probability of 2.0"),
    ],
)
def test_what_would_take_for_ever_is_refused_at_once(event: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        priced("x", [event], 1e-5, "add_or_remove_one")
