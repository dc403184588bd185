"""Price what was released, by the deciding accountant and every valid check side by side."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dp_accounting

from stages.core.canonical import canonical_json
from stages.privacy.accountants import Accountant, Relation, within_known_gap
from stages.privacy.accounting import accountant_of, cross_checks, epsilon_of
from stages.privacy.events import event_from_json
from stages.privacy.evidence import CHARGES
from stages.privacy.findings import Finding
from stages.privacy.plan import Plan
from stages.privacy.priceable import require_priceable
from stages.privacy.release_census import Population, events_of

_RELATIONS: tuple[Relation, ...] = ("add_or_remove_one", "replace_one")


@dataclass(frozen=True, kw_only=True)
class Priced:
    """The epsilon of something that was released."""

    what: str
    delta: float
    relation: Relation
    accountant: str
    epsilon: float
    """By the deciding accountant; infinity without privacy."""
    checks: Mapping[Accountant, float]
    """By every accountant that is valid for these events and this relation; may be none."""

    def to_json(self) -> dict[str, Any]:
        """Return the price as JSON; infinity is null."""
        finite = {name: _finite(check) for name, check in self.checks.items()}
        return {**asdict(self), "epsilon": _finite(self.epsilon), "checks": finite}


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def priced(what: str, events: Sequence[dp_accounting.DpEvent], delta: float, relation: Relation) -> Priced:
    """Return the price of events composed; what would take for ever is a ValueError."""
    for event in events:
        require_priceable(event)
    return Priced(
        what=what,
        delta=delta,
        relation=relation,
        accountant=accountant_of([events], relation),
        epsilon=epsilon_of(events, delta, relation),
        checks=cross_checks(events, delta, relation),
    )


def priced_charges(charges: Mapping[str, Any], plan: Plan) -> list[Priced]:
    """Return the price of every release among the charges of one pass."""
    return [
        priced(
            f"release {charge['release']} ({charge['stage']}, {charge['split']})",
            [event_from_json(charge["event"])],
            plan.delta,
            plan.relation,
        )
        for charge in charges["charges"]
        if charge.get("release")
    ]


def priced_pass(charges: Mapping[str, Any], plan: Plan) -> list[Priced]:
    """Return the price of all releases of one pass together, by split where splits compose in parallel."""
    releases = [charge for charge in charges["charges"] if charge.get("release")]
    if len(releases) < 2:
        return []
    events: dict[str, list[Mapping[str, Any]]] = {}
    for charge in releases:
        events.setdefault(charge["split"], []).append(charge["event"])
    return _composed("this pass", events, charges.get("composition"), plan.delta, plan.relation)


def priced_population(population: Population) -> list[Priced]:
    """Return the price of all releases of a population, as one fixed sequence; a ValueError says why not.

    In parallel the larger of the splits is the total, else everything composed. A sequence that was chosen on
    the way is not fixed: what holds then is the ledger's filter.
    """
    counted = {(one.unit, one.relation) for seen in population.seen.values() for one in seen if one.event}
    opened = population.ledger.opened if population.ledger else None
    deltas = set(population.deltas)
    if opened is not None:
        counted.add((opened.unit, opened.relation))
        if not deltas and opened.limit is not None:
            deltas = {opened.limit.delta}
    if len(counted) > 1:
        raise ValueError(
            f"its releases count by {len(counted)} different units or relations: they have no sum"
        )
    relation = next((known for known in _RELATIONS if known in {under for _, under in counted}), None)
    if relation is None or not deltas:
        raise ValueError("none of its evidence says by which relation and delta")
    return _composed("all releases", events_of(population), population.composition, min(deltas), relation)


def _composed(
    what: str,
    events: Mapping[str, Sequence[Mapping[str, Any]]],
    composition: Any,
    delta: float,
    relation: Relation,
) -> list[Priced]:
    if composition != "parallel":
        whole = [event for split in events.values() for event in split]
        return [_priced_many(what, whole, delta, relation)]
    return [_priced_many(f"{what}, {split}", events[split], delta, relation) for split in sorted(events)]


def _priced_many(what: str, stored: Sequence[Mapping[str, Any]], delta: float, relation: Relation) -> Priced:
    counts = Counter(canonical_json(event) for event in stored)
    events = [
        dp_accounting.SelfComposedDpEvent(event_from_json(json.loads(text)), count)
        for text, count in sorted(counts.items())
    ]
    return priced(f"{what} ({len(stored)})", events, delta, relation)


def disagreements(found: Sequence[Priced]) -> Iterator[Finding]:
    """Yield every check that disagrees with the deciding accountant beyond the gap that is known."""
    for price in found:
        for name, check in price.checks.items():
            if not within_known_gap(name, check, price.epsilon):
                yield Finding(
                    CHARGES,
                    f"{price.what}: {name} gives epsilon {check:.6f} where {price.accountant} gives "
                    f"{price.epsilon:.6f}, further apart than the two are known to be",
                )
