"""A chain is believed only when every entry follows the one before and keeps every rule."""

from dataclasses import replace
from fractions import Fraction

import dp_accounting
import pytest
from ledgers import DAY, LIMIT, PEOPLE, RULE, chain_of, opened, release, reservation, reserve, sgd

from stages.privacy.chain import (
    AbandonBody,
    Body,
    Entry,
    OpenBody,
    ReserveBody,
    SettleBody,
    SplitBody,
    new_entry,
)
from stages.privacy.events import event_to_json
from stages.privacy.history import history_of
from stages.privacy.renyi_filter import cost_of, open_filter
from stages.privacy.split_rule import source_field_rule

SETTLED = {"released": {}, "code": "", "commit": "", "versions": {}}
OPEN = opened()[1].body
UNKNOWN = {"class": "MixtureOfGaussiansDpEvent", "standard_deviation": 1.0}
ORDER = OPEN.limit.order


def price(event: dp_accounting.DpEvent) -> float:
    return cost_of(event, ORDER, "add_or_remove_one")


def held(number: int, event: dp_accounting.DpEvent, split: str = "train") -> ReserveBody:
    return ReserveBody(
        release=release(number),
        stage="finetune",
        split=split,
        sampler="poisson",
        event=event_to_json(event),
        cost=price(event),
    )


def settle(number: int, event: dp_accounting.DpEvent) -> SettleBody:
    return SettleBody(release=release(number), event=event_to_json(event), cost=price(event), **SETTLED)


def abandon(number: int, event: dp_accounting.DpEvent) -> AbandonBody:
    return AbandonBody(release=release(number), event=event_to_json(event), cost=price(event), reason="gone")


def history(*bodies: Body):
    return history_of(PEOPLE.name, chain_of(PEOPLE.name, bodies))


SPLIT = SplitBody(rule=RULE)


def test_a_release_counts_as_settled_else_abandoned_else_reserved() -> None:
    found = history(SPLIT, OPEN, held(1, sgd()), held(2, sgd()), held(3, sgd()), settle(1, sgd(steps=9)))
    found = history(
        SPLIT,
        OPEN,
        held(1, sgd()),
        held(2, sgd()),
        held(3, sgd()),
        settle(1, sgd(steps=9)),
        abandon(2, sgd(steps=3)),
    )
    assert [found.releases[release(number)].state for number in (1, 2, 3)] == [
        "settled",
        "abandoned",
        "reserved",
    ]
    costs = [price(sgd(steps=steps)) for steps in (9, 3, 40)]
    assert found.total() == sum(map(Fraction, costs))
    assert found.sum_of("train", "reserved") == Fraction(costs[2]) and found.sum_of("heldout", "settled") == 0


@pytest.mark.parametrize(
    ("bodies", "said"),
    [
        ((SPLIT, SPLIT), "entry 2 .* recorded already"),
        ((OPEN, OPEN), "entry 2 .* opens a population that is open"),
        ((held(1, sgd()),), "entry 1 .* the population is not open"),
        ((OPEN, settle(1, sgd())), "entry 2 .* ends release .* which is not reserved"),
        ((OPEN, held(1, sgd()), held(1, sgd())), "entry 3 .* a second time"),
        ((OPEN, held(1, sgd()), settle(1, sgd()), held(1, sgd())), "entry 4 .* a second time"),
        ((OPEN, held(1, sgd()), settle(1, sgd()), settle(1, sgd())), "entry 4 .* which is settled"),
        ((OPEN, held(1, sgd()), abandon(1, sgd()), settle(1, sgd())), "entry 4 .* which is abandoned"),
        ((OPEN, held(1, sgd()), settle(1, sgd(steps=41))), "entry 3 .* over its reservation"),
        ((OPEN, held(1, sgd()), abandon(1, sgd(1.4))), "entry 3 .* over its reservation"),
        ((OPEN, replace(held(1, sgd()), cost=0.0)), "entry 2 .* says that its event costs 0.0, and it costs"),
        ((OPEN, replace(held(1, sgd()), cost=None)), "entry 2 .* says that its event costs None"),
        (
            (OPEN, replace(held(1, sgd()), cost=price(sgd()) * (1 - 1e-6))),
            "entry 2 .* says that its event costs",
        ),
        ((OPEN, held(1, sgd(0.5))), "entry 2 .* over the budget"),
        ((OPEN, *(held(number, sgd()) for number in range(13))), "entry 14 .* over the budget"),
        ((SPLIT, OPEN, *(held(number, sgd()) for number in range(13))), "entry 15 .* over the budget"),
        (
            (OPEN, replace(held(1, sgd()), event=UNKNOWN)),
            "entry 2 .* known class",
        ),
        ((OPEN, replace(held(1, sgd()), event={"class": "os.system"})), "known class"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_named(bodies: tuple[Body, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        history(*bodies)


def test_an_infinite_cost_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        history(OPEN, held(1, dp_accounting.NonPrivateDpEvent()))


def linked() -> list[Entry]:
    return chain_of(PEOPLE.name, [SPLIT, OPEN, held(1, sgd()), held(2, sgd()), settle(1, sgd())])


@pytest.mark.parametrize("number", range(5))
def test_an_entry_that_was_dropped_doubled_or_moved_is_noticed(number: int) -> None:
    entries = linked()
    if number < 4:
        with pytest.raises(ValueError, match=f"entry {number + 1} of .* is entry {number + 2} of"):
            history_of(PEOPLE.name, entries[:number] + entries[number + 1 :])
        swapped = [*entries[:number], entries[number + 1], entries[number], *entries[number + 2 :]]
        with pytest.raises(ValueError, match=f"entry {number + 1} of"):
            history_of(PEOPLE.name, swapped)
    with pytest.raises(ValueError, match=f"entry {number + 2} of"):
        history_of(PEOPLE.name, [*entries[: number + 1], *entries[number:]])


def test_an_entry_that_was_replaced_breaks_the_link_of_the_next() -> None:
    entries = linked()
    entries[2] = new_entry(PEOPLE.name, entries[:2], DAY, held(1, sgd(steps=39)))
    with pytest.raises(ValueError, match="entry 4 of .* its previous digest is another's"):
        history_of(PEOPLE.name, entries)


def test_an_entry_of_another_population_is_noticed() -> None:
    with pytest.raises(ValueError, match="entry 1 of .* 'others' is entry 1 of .* 'people'"):
        history_of("others", linked())


OTHER = SplitBody(rule=source_field_rule("fold"))
TRAIN = [held(number, sgd()) for number in range(10)]
HELDOUT = [held(number, sgd(), "heldout") for number in range(20, 30)]


def test_splits_compose_in_parallel_under_one_keyed_hash() -> None:
    found = history(SPLIT, OPEN, *TRAIN, *HELDOUT)
    assert found.composition == "parallel"
    assert found.total() == 10 * Fraction(price(sgd()))


@pytest.mark.parametrize(
    "rules",
    [(), (OTHER,), (SPLIT, OTHER), (OTHER, SPLIT), (SPLIT, SplitBody(rule=RULE.replace("0.2", "0.3")))],
)
def test_splits_compose_in_sequence_under_any_other_rules(rules: tuple[SplitBody, ...]) -> None:
    found = history(*rules, OPEN, *TRAIN[:5], *HELDOUT[:5])
    assert found.composition == "sequential"
    assert found.total() == 10 * Fraction(price(sgd()))
    with pytest.raises(ValueError, match="over the budget"):
        history(*rules, OPEN, *TRAIN, *HELDOUT)


def test_a_second_rule_after_the_fact_is_noticed_when_it_breaks_the_limit() -> None:
    with pytest.raises(ValueError, match="entry 23 of .* over the budget"):
        history(SPLIT, OPEN, *TRAIN, *HELDOUT, OTHER)


def test_a_public_population_has_no_filter_and_its_events_are_still_events() -> None:
    public = OpenBody(public=True, unit="image", relation="replace_one", max_units=5, limit=None)
    nothing = dp_accounting.NonPrivateDpEvent()
    free = [
        replace(held(number, sgd()), cost=None, event=event_to_json(event))
        for number, event in enumerate([sgd(0.01), nothing])
    ]
    assert history(public, *free).total() == 0
    with pytest.raises(ValueError, match="a public population has no filter to price it"):
        history(public, held(1, sgd()))
    with pytest.raises(ValueError, match="known class"):
        history(public, replace(held(1, sgd()), cost=None, event={"class": "os.system"}))
    for wrong in ({"public": True, "limit": open_filter(LIMIT, sgd(), "add_or_remove_one")}, {"limit": None}):
        with pytest.raises(ValueError, match="a limit exactly where it is not public"):
            replace(OPEN, **wrong)


def test_sums_are_exact_whatever_the_order_of_entries() -> None:
    events = [sgd(1.0 + number / 7, steps=number + 1) for number in range(6)]
    bodies = [held(number, event) for number, event in enumerate(events)]
    assert history(OPEN, *bodies).sums == history(OPEN, *reversed(bodies)).sums


def test_the_writer_and_the_reader_agree() -> None:
    entries = reserve(reserve(opened(), reservation(1)), reservation(2))
    assert history_of(PEOPLE.name, entries).length == 4
