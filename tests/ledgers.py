"""People, releases and chains for the tests of the ledger."""

from collections.abc import Iterable
from typing import Any

import dp_accounting

from stages.privacy.accounting import step_event
from stages.privacy.chain import Body, Entry, OpenBody, SplitBody, new_entry
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit, open_filter
from stages.privacy.reserving import Reservation, Settlement, reserved
from stages.privacy.split_rule import keyed_hash_rule

PEOPLE = Population(name="people", public=False, max_units=1000, unit="person")
DIGITS = Population(name="digits", public=True, max_units=1000, unit="image")
LIMIT = Limit(epsilon=12.0, delta=1e-5)
ADD_OR_REMOVE = "add_or_remove_one"
DAY = "2031-02-03"
RULE = keyed_hash_rule("subject", 0.2)
TENTH = step_event(0.125, 1.38, 40)
"""Ten such releases fit the limit, and eleven do not."""


def sgd(noise_multiplier: float = 1.5, steps: int = 40, rate: float = 0.125) -> dp_accounting.DpEvent:
    return step_event(rate, noise_multiplier, steps)


def release(number: int) -> str:
    """Return the name of a release."""
    return f"{number:032x}"


def reservation(number: int, event: dp_accounting.DpEvent | None = None, **changes: Any) -> Reservation:
    usual = {"stage": "finetune", "split": "train", "sampler": "poisson"}
    return Reservation(release=release(number), event=event or sgd(), **usual | changes)


def settlement(number: int, event: dp_accounting.DpEvent | None = None, **changes: Any) -> Settlement:
    usual = {
        "released": {"models/adapter/a": "0" * 64},
        "code": "c",
        "commit": "d",
        "versions": {"torch": "2"},
    }
    return Settlement(release=release(number), event=event or sgd(), **usual | changes)


def chain_of(population: str, bodies: Iterable[Body]) -> list[Entry]:
    """Return a linked chain of these bodies, whether or not they keep the rules."""
    entries: list[Entry] = []
    for body in bodies:
        entries.append(new_entry(population, entries, DAY, body))
    return entries


def opened(*, rules: tuple[str, ...] = (RULE,), first: dp_accounting.DpEvent | None = None) -> list[Entry]:
    """Return the chain of PEOPLE that is open for releases like ``first``."""
    body = OpenBody(
        public=False,
        unit=PEOPLE.unit,
        relation=ADD_OR_REMOVE,
        max_units=PEOPLE.max_units,
        limit=open_filter(LIMIT, first or sgd(), ADD_OR_REMOVE),
    )
    return chain_of(PEOPLE.name, [*(SplitBody(rule=rule) for rule in rules), body])


def reserve(entries: list[Entry], asked: Reservation) -> list[Entry]:
    """Return the chain of PEOPLE with a reservation."""
    return [*entries, *reserved(PEOPLE, ADD_OR_REMOVE, LIMIT, entries, asked, DAY)]
