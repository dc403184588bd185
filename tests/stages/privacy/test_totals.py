"""The account of a population adds up, and a thousand releases of fifty kinds are fifty events."""

import time

import dp_accounting
import pytest
from ledgers import LIMIT, PEOPLE, RULE, chain_of, opened, release, reservation, reserve, settlement, sgd

from stages.privacy.chain import Entry, ReserveBody
from stages.privacy.events import event_to_json
from stages.privacy.history import History, Release, history_of
from stages.privacy.renyi_filter import cost_of
from stages.privacy.reserving import abandoned, settled
from stages.privacy.totals import grouped, totals_of


def account(rules: tuple[str, ...]) -> History:
    """Return a history in which two of four releases are spent, on both splits."""
    entries = opened(rules=rules)
    for number, split in enumerate(["train", "train", "train", "heldout"]):
        entries = reserve(entries, reservation(number, split=split))
    entries += settled(PEOPLE.name, entries, settlement(0), "2031-02-03")
    entries += abandoned(PEOPLE.name, entries, release(3), sgd(steps=30), "gone", "2031-02-03")
    return history_of(PEOPLE.name, entries)


def cost(steps: int) -> float:
    return cost_of(sgd(steps=steps), totals_of(account((RULE,))).limit.order, "add_or_remove_one")


def test_in_parallel_each_split_has_the_whole_budget() -> None:
    found = totals_of(account((RULE,)))
    train, heldout = found.splits["train"], found.splits["heldout"]
    assert (train.spent, heldout.spent) == pytest.approx((cost(40), cost(30)))
    assert (train.reserved, heldout.reserved) == pytest.approx((2 * cost(40), 0))
    budget = found.limit.budget
    assert (train.remaining, heldout.remaining) == pytest.approx((budget - 3 * cost(40), budget - cost(30)))
    assert (found.spent, found.reserved) == pytest.approx((cost(40), 2 * cost(40)))
    assert found.remaining == train.remaining


def test_in_sequence_the_splits_share_one_budget() -> None:
    found = totals_of(account(()))
    total = 3 * cost(40) + cost(30)
    assert found.splits["train"].remaining == pytest.approx(found.limit.budget - total)
    assert found.splits["heldout"].remaining == found.splits["train"].remaining == found.remaining
    assert (found.spent, found.reserved) == pytest.approx((cost(40) + cost(30), 2 * cost(40)))


def test_the_epsilon_is_that_of_everything_spent_and_reserved() -> None:
    for rules in ((RULE,), ()):
        found = totals_of(account(rules))
        accountant = dp_accounting.rdp.RdpAccountant([found.limit.order])
        for steps in (40, 40, 40) if rules else (40, 40, 40, 30):
            accountant.compose(sgd(steps=steps))
        assert found.epsilon == pytest.approx(accountant.get_epsilon(LIMIT.delta), rel=1e-12)


def test_there_is_no_account_before_the_first_release() -> None:
    assert totals_of(history_of(PEOPLE.name, opened()[:1])) is None
    assert totals_of(history_of(PEOPLE.name, opened())).epsilon == 0


def thousand(kinds: int) -> list[Release]:
    events = [event_to_json(sgd(1.0 + kind / 100)) for kind in range(kinds)]
    usual = {"stage": "finetune", "split": "train", "sampler": "poisson", "state": "settled", "day": "d"}
    return [
        Release(release=release(number), event=events[number % kinds], cost=0.1, **usual)
        for number in range(1000)
    ]


def test_a_thousand_releases_of_fifty_kinds_are_fifty_events() -> None:
    found = grouped(thousand(50))
    assert [times for _, times in found] == [20] * 50
    noises = {event.event.event.noise_multiplier for event, _ in found}
    assert noises == {1.0 + kind / 100 for kind in range(50)}


def thousand_entries() -> list[Entry]:
    """Return a chain of releases whose events are of fifty kinds."""
    opening = [entry.body for entry in opened(first=sgd(30.0, steps=1))]
    order = opening[-1].limit.order
    events = [sgd(30.0 + kind, steps=1) for kind in range(50)]
    usual = {"stage": "finetune", "split": "train", "sampler": "poisson"}
    costs = [cost_of(event, order, "add_or_remove_one") for event in events]
    held = [
        ReserveBody(
            release=release(number),
            event=event_to_json(events[number % 50]),
            cost=costs[number % 50],
            **usual,
        )
        for number in range(998)
    ]
    return chain_of(PEOPLE.name, [*opening, *held])


def test_a_thousand_entries_with_fifty_events_are_totalled_in_five_seconds() -> None:
    entries = thousand_entries()
    start = time.perf_counter()
    found = totals_of(history_of(PEOPLE.name, entries))
    assert time.perf_counter() - start < 5
    assert len(entries) == 1000 and 0 < found.remaining < found.limit.budget
