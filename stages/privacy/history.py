"""What the entries of a population's ledger say, once every one of them has been checked.

The rules here are those of the writer and those of the auditor: nothing is appended that they would refuse.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal

from stages.privacy.accounting import Composition
from stages.privacy.chain import (
    START,
    AbandonBody,
    Entry,
    Kind,
    OpenBody,
    ReserveBody,
    Sampler,
    SettleBody,
    Split,
    SplitBody,
)
from stages.privacy.events import event_from_json
from stages.privacy.renyi_filter import ROUNDING, stored_cost
from stages.privacy.split_rule import is_function_of_the_unit

State = Literal["reserved", "settled", "abandoned"]
STATES: tuple[State, ...] = ("reserved", "settled", "abandoned")
STATE_AFTER: dict[Kind, State] = {"reserve": "reserved", "settle": "settled", "abandon": "abandoned"}
"""What an entry makes of the release it is about."""
SPLITS: tuple[Split, ...] = ("train", "heldout")


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release, and what it counts as: what was executed, what was begun, or else what was reserved."""

    release: str
    stage: str
    split: Split
    sampler: Sampler
    state: State
    event: dict[str, Any]
    cost: float | None
    """RDP of ``event`` at the order of the population's filter; None for a public population."""
    day: str
    """On which it was reserved."""


@dataclass(frozen=True, kw_only=True)
class History:
    """A checked chain, folded."""

    population: str
    length: int
    head: str
    """The digest of the last entry."""
    opened: OpenBody | None
    rules: tuple[str, ...]
    """Every rule that ever assigned units to splits, in the order of first use."""
    releases: Mapping[str, Release]
    sums: Mapping[tuple[Split, State], Fraction]
    """The exact sum of the costs, by split and state."""
    answered: frozenset[tuple[str, str, str]]
    """The approvals that releases were begun on: the run that asked, stage, fingerprint of the inputs."""

    @property
    def composition(self) -> Composition:
        """Return how charges of the splits compose.

        Guarantee: parallel only where every unit is in one split for good, by its own id alone, and
        neighbours differ by one unit added or removed. Then a unit meets the charges of its split only.
        """
        steady = len(self.rules) == 1 and is_function_of_the_unit(self.rules[0])
        alike = self.opened is not None and self.opened.relation == "add_or_remove_one"
        return "parallel" if steady and alike else "sequential"

    def total(self) -> Fraction:
        """Return the RDP of all releases composed, every reservation at its worst case."""
        by_split = [sum((self.sum_of(split, state) for state in STATES), Fraction()) for split in SPLITS]
        return max(by_split) if self.composition == "parallel" else sum(by_split, Fraction())

    def sum_of(self, split: Split, state: State) -> Fraction:
        """Return the exact sum of the costs of the releases on ``split`` in ``state``."""
        return self.sums.get((split, state), Fraction())


class OverLimit(ValueError):
    """The filter does not admit the total."""


class UsedApproval(ValueError):
    """A person said yes to one release, and another was begun on it."""


def new_history(population: str) -> History:
    """Return the history of a population of which nothing is recorded."""
    return History(
        population=population,
        length=0,
        head=START,
        opened=None,
        rules=(),
        releases=MappingProxyType({}),
        sums=MappingProxyType({}),
        answered=frozenset(),
    )


def extended(history: History, entries: Iterable[Entry]) -> History:
    """Return ``history`` with ``entries`` appended; one that breaks a rule is a ValueError that names it.

    Guarantee: each entry follows the one before (population, number, digest); a population is opened once and
    before its releases; a release is reserved once, then settled or abandoned at most once, for no more than
    was reserved; an approval is for one release; every cost is that of its event; and after every entry the
    filter admits the total.
    """
    releases, sums = dict(history.releases), dict(history.sums)
    now = replace(history, releases=MappingProxyType(releases), sums=MappingProxyType(sums))
    for entry in entries:
        where = f"entry {now.length + 1} of the ledger of population '{now.population}'"
        if (entry.population, entry.sequence) != (now.population, now.length + 1):
            raise ValueError(f"{where} is entry {entry.sequence} of population '{entry.population}'")
        if entry.previous != now.head:
            raise ValueError(f"{where} does not follow the entry before it: its previous digest is another's")
        now = replace(now, length=entry.sequence, head=entry.digest)
        body = entry.body
        if isinstance(body, SplitBody):
            now = _split(now, body, where)
        elif isinstance(body, OpenBody):
            now = _open(now, body, where)
        else:
            _release(now, entry, body, releases, sums, where)
            now = _answered(now, body, where)
        _require_admitted(now, where)
    return now


def history_of(population: str, entries: Iterable[Entry]) -> History:
    """Return the history of a whole chain; ``extended`` says what is checked."""
    return extended(new_history(population), entries)


def _split(now: History, body: SplitBody, where: str) -> History:
    if body.rule in now.rules:
        raise ValueError(f"{where} records a split rule that is recorded already")
    return replace(now, rules=(*now.rules, body.rule))


def _open(now: History, body: OpenBody, where: str) -> History:
    if now.opened is not None:
        raise ValueError(f"{where} opens a population that is open")
    return replace(now, opened=body)


def _release(
    now: History,
    entry: Entry,
    body: ReserveBody | SettleBody | AbandonBody,
    releases: dict[str, Release],
    sums: dict[tuple[Split, State], Fraction],
    where: str,
) -> None:
    """Take an entry about a release into ``releases`` and ``sums``."""
    if now.opened is None:
        raise ValueError(f"{where} is about a release, and the population is not open")
    try:
        _require_cost(now.opened, body)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    known = releases.get(body.release)
    if isinstance(body, ReserveBody):
        if known is not None:
            raise ValueError(f"{where} reserves release {body.release} a second time")
        known = Release(
            release=body.release,
            stage=body.stage,
            split=body.split,
            sampler=body.sampler,
            state="reserved",
            event=body.event,
            cost=body.cost,
            day=entry.day,
        )
    else:
        if known is None or known.state != "reserved":
            state = "not reserved" if known is None else known.state
            raise ValueError(f"{where} ends release {body.release}, which is {state}")
        if known.cost is not None and body.cost is not None and body.cost > known.cost:
            raise ValueError(
                f"{where} ends release {body.release} at a cost of {body.cost!r}, over its reservation of "
                f"{known.cost!r}"
            )
        sums[(known.split, known.state)] -= Fraction(known.cost or 0)
        known = replace(known, state=STATE_AFTER[entry.kind], event=body.event, cost=body.cost)
    releases[body.release] = known
    slot = (known.split, known.state)
    sums[slot] = sums.get(slot, Fraction()) + Fraction(known.cost or 0)


def _answered(now: History, body: ReserveBody | SettleBody | AbandonBody, where: str) -> History:
    """Take the approval of a reservation as used; one that was used before is refused."""
    if not isinstance(body, ReserveBody) or body.approval is None or body.approval.asked_in is None:
        return now
    answer = (body.approval.asked_in, body.stage, body.approval.fingerprint)
    if answer in now.answered:
        raise UsedApproval(f"{where} begins release {body.release} on an approval that another was begun on")
    return replace(now, answered=now.answered | {answer})


def _require_cost(opened: OpenBody, body: ReserveBody | SettleBody | AbandonBody) -> None:
    if opened.limit is None:
        event_from_json(body.event)
        if body.cost is not None:
            raise ValueError("it has a cost, though a public population has no filter to price it")
        return
    cost = stored_cost(body.event, opened.limit.order, opened.relation)
    if body.cost is None or math.isinf(cost) or not math.isclose(body.cost, cost, rel_tol=ROUNDING / 2):
        raise ValueError(f"it says that its event costs {body.cost}, and it costs {cost!r}")


def _require_admitted(now: History, where: str) -> None:
    if now.opened is None or now.opened.limit is None:
        return
    limit, total = now.opened.limit, float(now.total())
    if not limit.admits(total):
        raise OverLimit(
            f"{where} brings the total to {total:.6g} at order {limit.order:g}, over the budget of "
            f"{limit.budget:.6g} (epsilon {limit.epsilon:g} at delta {limit.delta:g})"
        )
