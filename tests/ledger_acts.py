"""What a process does with the ledger; every act opens it as a stage does."""

import time
from dataclasses import replace

from ledgers import ADD_OR_REMOVE, PEOPLE, RULE, TENTH, release, reservation, settlement, sgd

from stages.ledger.ledger import Ledger


def reserve(number: int) -> str:
    """Reserve a tenth of the budget."""
    return Ledger.load().reserve(PEOPLE, ADD_OR_REMOVE, reservation(number, TENTH)).kind


def settle(number: int) -> str:
    """Settle a release that executed every step."""
    return Ledger.load().settle(PEOPLE.name, settlement(number, TENTH)).kind


def abandon(number: int) -> str:
    """Abandon a release that had begun three steps."""
    return Ledger.load().abandon(PEOPLE.name, release(number), sgd(1.38, steps=3), "gone").kind


def key() -> str:
    """Return the key of a population."""
    return Ledger.load().population_key("people").secret.hex()


def register() -> str:
    """Register some units of PEOPLE."""
    Ledger.load().register(PEOPLE, [f"unit {number}" for number in range(20)], RULE)
    return "registered"


def claim(number: int) -> str:
    """Claim a unit for one of several populations."""
    Ledger.load().register(replace(PEOPLE, name=f"people {number}"), ["shared", f"own {number}"], RULE)
    return str(number)


def span() -> str:
    """Return when this process was busy."""
    start = time.monotonic()
    time.sleep(1)
    return f"{start} {time.monotonic()}"


def settle_or_abandon(number: int) -> str:
    """Settle the first release, or abandon it."""
    return settle(1) if number % 2 else abandon(1)


LITTLE = sgd(30.0, steps=1)


def reserve_little(number: int) -> str:
    """Reserve a release of which thousands fit."""
    return Ledger.load().reserve(PEOPLE, ADD_OR_REMOVE, reservation(number, LITTLE)).kind


def settle_little(number: int) -> str:
    """Settle such a release."""
    return Ledger.load().settle(PEOPLE.name, settlement(number, LITTLE)).kind


def reserve_two() -> str:
    """Reserve two releases in two transactions."""
    return reserve(1) + reserve(2)
