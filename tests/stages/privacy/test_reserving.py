"""What is asked of the ledger is appended once, or refused with the reason and the numbers."""

import re
from dataclasses import replace

import dp_accounting
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import (
    ADD_OR_REMOVE,
    DAY,
    DIGITS,
    LIMIT,
    PEOPLE,
    RULE,
    TENTH,
    opened,
    release,
    reservation,
    reserve,
    settlement,
    sgd,
)

from stages.privacy.chain import Entry
from stages.privacy.events import event_from_json
from stages.privacy.history import history_of
from stages.privacy.renyi_filter import Limit, RenyiFilter
from stages.privacy.reserving import abandoned, reserved, settled, split_recorded
from stages.privacy.split_rule import source_field_rule
from stages.privacy.totals import totals_of

NAME = PEOPLE.name
OTHER = source_field_rule("fold")


def ask(entries: list[Entry], asked, population=PEOPLE, relation=ADD_OR_REMOVE, limit=LIMIT) -> list[Entry]:
    return reserved(population, relation, limit, entries, asked, DAY)


def kinds(entries: list[Entry]) -> list[str]:
    return [entry.kind for entry in entries]


def test_the_first_reservation_opens_the_population() -> None:
    assert kinds(ask([], reservation(1))) == ["open", "reserve"]
    assert kinds(ask(ask([], reservation(1)), reservation(2))) == ["reserve"]


def test_asking_again_appends_nothing_in_whatever_state_the_release_is() -> None:
    entries = ask([], reservation(1))
    assert ask(entries, reservation(1)) == []
    entries += settled(NAME, entries, settlement(1), DAY)
    assert ask(entries, reservation(1)) == [] and settled(NAME, entries, settlement(1), DAY) == []
    other = ask([], reservation(1))
    other += abandoned(NAME, other, release(1), sgd(steps=3), "gone", DAY)
    assert abandoned(NAME, other, release(1), sgd(steps=3), "gone", DAY) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "profile"}, "stage"),
        ({"split": "heldout"}, "split"),
        ({"sampler": "none"}, "sampler"),
        ({"event": sgd(steps=39)}, "event"),
    ],
)
def test_a_known_release_with_another_content_is_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"entry 2 of .*'people'.* with other {said}: one release has one"):
        ask(ask([], reservation(1)), reservation(1, **change))


def test_a_settled_release_with_another_content_is_refused() -> None:
    entries = ask([], reservation(1))
    entries += settled(NAME, entries, settlement(1), DAY)
    for change, said in (({"released": {}}, "released"), ({"event": sgd(steps=3)}, "event")):
        with pytest.raises(ValueError, match=f"with other {said}"):
            settled(NAME, entries, settlement(1, **change), DAY)
    with pytest.raises(ValueError, match="is settled already: it cannot be abandoned"):
        abandoned(NAME, entries, release(1), sgd(), "gone", DAY)


def test_an_abandoned_release_is_over() -> None:
    entries = ask([], reservation(1))
    entries += abandoned(NAME, entries, release(1), sgd(steps=3), "gone", DAY)
    with pytest.raises(ValueError, match="was abandoned, and charged for what it had begun: start a new one"):
        ask(entries, reservation(1))
    with pytest.raises(ValueError, match="is abandoned already: it cannot be settled"):
        settled(NAME, entries, settlement(1), DAY)


@pytest.mark.parametrize("entries", [[], opened()], ids=["unknown", "open"])
def test_what_was_never_reserved_can_be_neither_settled_nor_abandoned(entries: list[Entry]) -> None:
    for end in (
        lambda: settled(NAME, entries, settlement(1), DAY),
        lambda: abandoned(NAME, entries, release(1), sgd(), "gone", DAY),
    ):
        with pytest.raises(ValueError, match=f"{release(1)} was never reserved in population 'people'"):
            end()


def test_nothing_ends_at_more_than_was_reserved() -> None:
    entries = ask([], reservation(1))
    more = dp_accounting.ComposedDpEvent([sgd(), dp_accounting.GaussianDpEvent(9)])
    for event in (sgd(steps=41), sgd(1.4), more):
        with pytest.raises(ValueError, match="over its reservation"):
            settled(NAME, entries, settlement(1, event), DAY)
        with pytest.raises(ValueError, match="over its reservation"):
            abandoned(NAME, entries, release(1), event, "gone", DAY)
    for event in (sgd(), sgd(steps=1), sgd(2.0), dp_accounting.NoOpDpEvent()):
        assert kinds(settled(NAME, entries, settlement(1, event), DAY)) == ["settle"]


def test_over_the_limit_the_arithmetic_is_in_the_sentence() -> None:
    entries = opened()
    for number in range(12):
        entries = reserve(entries, reservation(number))
    entries += settled(NAME, entries, settlement(0), DAY)
    found = totals_of(history_of(NAME, entries))
    with pytest.raises(ValueError) as refused:
        ask(entries, reservation(99))
    said = str(refused.value)
    numbers = [float(text) for text in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", said)]
    needed, remains, budget, spent, held, order, epsilon, delta, composed = numbers
    assert budget - spent - held == pytest.approx(remains, abs=1e-5) and remains < needed
    assert (order, epsilon, delta) == (found.limit.order, 12.0, 1e-5)
    assert composed == pytest.approx(found.epsilon, rel=1e-3)
    assert "over the limit of population 'people': stage finetune" in said and "remains for train" in said
    assert "`dualpriv ledger abandon RELEASE`" in said and "\n" not in said
    assert kinds(ask(entries, reservation(99, split="heldout"))) == ["reserve"], "the splits are parallel"


def test_ten_copies_fit_where_eleven_do_not() -> None:
    """The noise of the race tests (tests/stages/ledger/test_races.py) is such."""
    entries: list[Entry] = []
    for number in range(10):
        entries += ask(entries, reservation(number, TENTH))
    with pytest.raises(ValueError, match="over the limit"):
        ask(entries, reservation(10, TENTH))


@pytest.mark.parametrize(
    ("population", "relation", "limit", "said"),
    [
        (replace(PEOPLE, public=True), ADD_OR_REMOVE, LIMIT, "population.public False, and .* says True"),
        (replace(PEOPLE, unit="visit"), ADD_OR_REMOVE, LIMIT, "population.unit person"),
        (replace(PEOPLE, max_units=2000), ADD_OR_REMOVE, LIMIT, "population.max_units 1000"),
        (PEOPLE, "replace_one", LIMIT, "privacy.relation add_or_remove_one"),
        (PEOPLE, ADD_OR_REMOVE, Limit(epsilon=13.0, delta=1e-5), r"ledger.limit.epsilon 12.0"),
        (PEOPLE, ADD_OR_REMOVE, Limit(epsilon=12.0, delta=1e-6), "ledger.limit.delta 1e-05"),
    ],
)
def test_the_terms_of_a_budget_never_change(population, relation, limit, said: str) -> None:
    with pytest.raises(ValueError, match=f"population 'people' was opened with {said}"):
        ask(opened(), reservation(1), population, relation, limit)


def test_a_population_that_is_not_public_needs_a_limit_that_means_something() -> None:
    with pytest.raises(ValueError, match="delta 0.01 must be below 1 / population.max_units = 0.001"):
        ask([], reservation(1), limit=Limit(epsilon=1.0, delta=0.01))
    with pytest.raises(ValueError, match="under replace_one.*needs privacy.relation add_or_remove_one"):
        ask([], reservation(1), relation="replace_one")
    with pytest.raises(ValueError, match="has no privacy, and its population is not public"):
        ask([], reservation(1, dp_accounting.NonPrivateDpEvent()))
    with pytest.raises(ValueError, match="over the limit of population 'people'"):
        ask([], reservation(1, sgd(0.1)))


def test_a_public_population_is_never_refused() -> None:
    entries: list[Entry] = []
    for number, event in enumerate([dp_accounting.NonPrivateDpEvent(), *[sgd(0.1)] * 20]):
        entries += ask(entries, reservation(number, event), DIGITS, "replace_one")
        entries += settled(DIGITS.name, entries, settlement(number, event), DAY)
    assert totals_of(history_of(DIGITS.name, entries)) is None
    assert entries[0].body.limit is None and {entry.body.cost for entry in entries[1:]} == {None}


def test_a_split_rule_is_recorded_once() -> None:
    entries = split_recorded(NAME, [], RULE, DAY)
    assert kinds(entries) == ["split"]
    assert split_recorded(NAME, entries, RULE, DAY) == []
    entries += split_recorded(NAME, entries, OTHER, DAY)
    assert [entry.body.rule for entry in entries] == [RULE, OTHER]
    assert split_recorded(NAME, entries, RULE, DAY) == []


def test_a_split_rule_that_would_break_the_limit_is_refused() -> None:
    entries = opened()
    for number in range(20):
        entries = reserve(entries, reservation(number, split=("train", "heldout")[number % 2]))
    with pytest.raises(ValueError, match="to splits by 'keyed hash.*go back to the split that you had"):
        split_recorded(NAME, entries, OTHER, DAY)


ACTS = st.tuples(
    st.sampled_from(["reserve", "settle", "abandon"]),
    st.integers(0, 5),
    st.sampled_from(["train", "heldout"]),
    st.floats(0.6, 4.0),
    st.integers(1, 60),
)


def ever_exceeds(acts: list, rules: tuple[str, ...]) -> bool:
    """Tell whether these acts bring a unit over the limit, as the accountant itself composes them."""
    entries = opened(rules=rules, first=sgd(2.0, 30))
    order = entries[-1].body.limit.order
    for kind, number, split, noise, steps in acts:
        event = sgd(noise, steps)
        try:
            if kind == "reserve":
                entries = reserve(entries, reservation(number, event, split=split))
            elif kind == "settle":
                entries = [*entries, *settled(NAME, entries, settlement(number, event), DAY)]
            else:
                entries = [*entries, *abandoned(NAME, entries, release(number), event, "gone", DAY)]
        except ValueError:
            continue
        if worst_off(entries, order, apart=rules == (RULE,)) > LIMIT.epsilon:
            return True
    return False


def worst_off(entries: list[Entry], order: float, *, apart: bool) -> float:
    """Return the epsilon of the worst-off unit, from the last entry about each release that it meets."""
    last = {entry.body.release: entry.body.event for entry in entries if hasattr(entry.body, "release")}
    split = {entry.body.release: entry.body.split for entry in entries if entry.kind == "reserve"}
    found = []
    for met in ({"train"}, {"heldout"}) if apart else ({"train", "heldout"},):
        accountant = dp_accounting.rdp.RdpAccountant([order])
        for name, event in last.items():
            if split[name] in met:
                accountant.compose(event_from_json(event))
        found.append(float(accountant.get_epsilon(LIMIT.delta)))
    return max(found)


RULES = [(RULE,), (), (RULE, OTHER)]


@settings(deadline=None, max_examples=50)
@given(st.lists(ACTS, max_size=25), st.sampled_from(RULES))
def test_whatever_is_asked_in_whatever_order_no_unit_exceeds_the_limit(acts: list, rules: tuple) -> None:
    assert not ever_exceeds(acts, rules)


@pytest.mark.parametrize("rules", RULES)
def test_control_a_filter_that_admits_a_little_more_is_noticed(rules: tuple, monkeypatch) -> None:
    acts = [("reserve", number, "train", 1.5, 40) for number in range(20)]
    assert not ever_exceeds(acts, rules)
    monkeypatch.setattr(RenyiFilter, "admits", lambda self, total: total <= 1.1 * self.budget)
    assert ever_exceeds(acts, rules)
