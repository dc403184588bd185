"""Which entries a request appends to a population's chain, or why none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import dp_accounting

from stages.privacy.accountants import Relation
from stages.privacy.approval import Approval, NotAsked
from stages.privacy.chain import (
    AbandonBody,
    Body,
    Entry,
    Kind,
    OpenBody,
    ReserveBody,
    Sampler,
    SettleBody,
    Split,
    SplitBody,
    new_entry,
)
from stages.privacy.events import event_to_json
from stages.privacy.history import STATE_AFTER, History, OverLimit, UsedApproval, extended, history_of
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit, open_filter, stored_cost
from stages.privacy.totals import totals_of


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """What a stage asks for before it reads the first private record: ``event`` is the most it may spend."""

    release: str
    stage: str
    split: Split
    sampler: Sampler
    event: dp_accounting.DpEvent
    approval: Approval | NotAsked | None = None
    """None where no flow asks."""


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What a release published, and the event that was executed for it."""

    release: str
    event: dp_accounting.DpEvent
    released: Mapping[str, str]
    """SHA-256 of each file, by its path in the checkout."""
    code: str
    commit: str
    versions: Mapping[str, str]


def split_recorded(population: str, entries: Sequence[Entry], rule: str, day: str) -> list[Entry]:
    """Return the entry that records a split rule; none where it is recorded already.

    Guarantee: a rule that would bring the total over the limit, because the splits no longer compose in
    parallel, is refused.
    """
    history = history_of(population, entries)
    if rule in history.rules:
        return []
    try:
        return _appended(history, entries, day, SplitBody(rule=rule))
    except OverLimit:
        raise ValueError(
            f"units of population '{population}' were assigned to splits by '{history.rules[0]}': after "
            f"'{rule}' all its releases would compose in sequence, and that is over its limit; go back to "
            "the split that you had"
        ) from None


def reserved(
    population: Population,
    relation: Relation,
    limit: Limit,
    entries: Sequence[Entry],
    reservation: Reservation,
    day: str,
) -> list[Entry]:
    """Return the entries that reserve a release; none where it is reserved already, with the same content.

    Guarantee: the chain with these entries keeps every rule of ``history.extended``, the limit and one
    release an approval among them; nothing new is reserved where a flow asked nobody. Errors: a ValueError
    that says what differs, or with which numbers the limit is exceeded.
    """
    name, new = population.name, list[Entry]()
    history = history_of(name, entries)
    if history.opened is None:
        new = _appended(history, entries, day, _opening(population, relation, limit, reservation))
        history = extended(history, new)
    opened = _opened(history, reservation.release)
    _require_same_constants(name, opened, population, relation, limit)
    body = ReserveBody(
        release=reservation.release,
        stage=reservation.stage,
        split=reservation.split,
        sampler=reservation.sampler,
        event=event_to_json(reservation.event),
        cost=_cost(opened, reservation.event),
        approval=None if isinstance(reservation.approval, NotAsked) else reservation.approval,
    )
    if body.release in history.releases:
        if history.releases[body.release].state == "abandoned":
            raise ValueError(
                f"release {body.release} was abandoned, and charged for what it had begun: start a new one"
            )
        _require_same(entry_of(entries, "reserve", body.release), body)
        return []
    if isinstance(reservation.approval, NotAsked):
        raise ValueError(
            f"nobody was asked whether {body.stage} may spend, for a moment ago it had nothing new to spend: "
            "run the flow again"
        )
    try:
        return [*new, *_appended(history, [*entries, *new], day, body)]
    except OverLimit:
        raise ValueError(_arithmetic(history, body)) from None
    except UsedApproval:
        assert body.approval is not None
        raise ValueError(
            f"{body.approval.by} approved one release of {body.stage} on these inputs, and it was made: run "
            "the flow again, which asks again"
        ) from None


def settled(population: str, entries: Sequence[Entry], settlement: Settlement, day: str) -> list[Entry]:
    """Return the entry that settles a release; none where it is settled already, with the same content."""
    history = history_of(population, entries)
    body = SettleBody(
        release=settlement.release,
        event=event_to_json(settlement.event),
        cost=_cost_of_ending(history, settlement.release, settlement.event),
        released=dict(settlement.released),
        code=settlement.code,
        commit=settlement.commit,
        versions=dict(settlement.versions),
    )
    return _ended(history, entries, day, body)


def abandoned(
    population: str,
    entries: Sequence[Entry],
    release: str,
    event: dp_accounting.DpEvent,
    reason: str,
    day: str,
) -> list[Entry]:
    """Return the entry that abandons a release; none where it is abandoned already, with the same content."""
    history = history_of(population, entries)
    cost = _cost_of_ending(history, release, event)
    body = AbandonBody(release=release, event=event_to_json(event), cost=cost, reason=reason)
    return _ended(history, entries, day, body)


def entry_of(entries: Sequence[Entry], kind: Kind, release: str) -> Entry:
    """Return the entry by which ``release`` was reserved, settled or abandoned, which must be there."""
    return next(
        entry
        for entry in reversed(entries)
        if entry.kind == kind and getattr(entry.body, "release", None) == release
    )


def _appended(history: History, entries: Sequence[Entry], day: str, body: Body) -> list[Entry]:
    entry = new_entry(history.population, entries, day, body)
    extended(history, [entry])
    return [entry]


def _ended(
    history: History, entries: Sequence[Entry], day: str, body: SettleBody | AbandonBody
) -> list[Entry]:
    release = history.releases.get(body.release)
    if release is None:
        raise ValueError(f"release {body.release} was never reserved in population '{history.population}'")
    if release.state == "reserved":
        return _appended(history, entries, day, body)
    kind: Kind = "settle" if isinstance(body, SettleBody) else "abandon"
    if release.state != STATE_AFTER[kind]:
        raise ValueError(
            f"release {body.release} is {release.state} already: it cannot be {STATE_AFTER[kind]}"
        )
    _require_same(entry_of(entries, kind, body.release), body)
    return []


def _require_same(entry: Entry, body: Body) -> None:
    before, now = asdict(entry.body), asdict(body)
    decides = before.keys() - {"cost", "approval"}  # the event decides a cost; the first approval stands
    changed = sorted(key for key in decides if before[key] != now[key])
    if changed:
        raise ValueError(
            f"release {now['release']} is in the ledger (entry {entry.sequence} of population "
            f"'{entry.population}') with other {', '.join(changed)}: one release has one content, so start a "
            "new one"
        )


def _opening(population: Population, relation: Relation, limit: Limit, first: Reservation) -> OpenBody:
    if not population.public and limit.delta >= 1 / population.max_units:
        raise ValueError(
            f"ledger.limit.delta {limit.delta:g} must be below 1 / population.max_units = "
            f"{1 / population.max_units:.3g}: at that delta a release may publish one unit outright"
        )
    return OpenBody(
        public=population.public,
        unit=population.unit,
        relation=relation,
        max_units=population.max_units,
        limit=None if population.public else open_filter(limit, first.event, relation),
    )


def _opened(history: History, release: str) -> OpenBody:
    if history.opened is None:
        raise ValueError(f"release {release} was never reserved in population '{history.population}'")
    return history.opened


def _require_same_constants(
    name: str, opened: OpenBody, population: Population, relation: Relation, limit: Limit
) -> None:
    """Refuse constants other than those that the budget was opened with."""
    pairs: dict[str, tuple[object, object]] = {
        "population.public": (opened.public, population.public),
        "population.unit": (opened.unit, population.unit),
        "population.max_units": (opened.max_units, population.max_units),
        "privacy.relation": (opened.relation, relation),
    }
    if opened.limit is not None:
        pairs["ledger.limit.epsilon"] = (opened.limit.epsilon, limit.epsilon)
        pairs["ledger.limit.delta"] = (opened.limit.delta, limit.delta)
    for key, (before, now) in pairs.items():
        if before != now:
            raise ValueError(
                f"the ledger of population '{name}' was opened with {key} {before}, and params.yaml says "
                f"{now}: set it back to {before}, for what was spent is counted in those terms"
            )


def _cost(opened: OpenBody, event: dp_accounting.DpEvent) -> float | None:
    if opened.limit is None:
        return None
    cost = stored_cost(event_to_json(event), opened.limit.order, opened.relation)
    if math.isinf(cost):
        raise ValueError(f"{event} has no privacy, and its population is not public: no limit admits it")
    return cost


def _cost_of_ending(history: History, release: str, event: dp_accounting.DpEvent) -> float | None:
    """Return the cost of what a release did; as it was reserved where it did all of that.

    Another machine may compute another last digit, and a release does not fail for that.
    """
    known = history.releases.get(release)
    if known is not None and known.event == event_to_json(event):
        return known.cost
    return _cost(_opened(history, release), event)


def _arithmetic(history: History, body: ReserveBody) -> str:
    """Say with which numbers a reservation exceeds the limit."""
    found = totals_of(history)
    assert found is not None and body.cost is not None
    split, limit = found.splits[body.split], found.limit
    apart = found.composition == "parallel"
    spent, held = (split.spent, split.reserved) if apart else (found.spent, found.reserved)
    return (
        f"over the limit of population '{history.population}': stage {body.stage} needs {body.cost:.6g} and "
        f"{split.remaining:.6g} remains{f' for {body.split}' if apart else ''}, which is the budget "
        f"{limit.budget:.6g} - spent {spent:.6g} - reserved {held:.6g} in Renyi DP at order {limit.order:g} "
        f"(the limit is epsilon {limit.epsilon:g} at delta {limit.delta:g}; spent and reserved come to "
        f"epsilon {found.epsilon:.4g}): plan a cheaper release, or end what a dead run still reserves with "
        "`dualpriv ledger abandon RELEASE`"
    )
