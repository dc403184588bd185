"""A population's ledger as evidence: the whole chain in a file, checked, and what it says of a pass."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import dp_accounting

from stages.privacy.accountants import cell_of, price
from stages.privacy.accounting import FINE_GRID, is_nonprivate
from stages.privacy.chain import chain_from_json
from stages.privacy.events import event_to_json
from stages.privacy.history import History, history_of
from stages.privacy.totals import grouped, totals_of


def read_ledger(value: Any, population: str) -> History:
    """Return the history that a stored chain tells; a broken or another population's is a ValueError.

    Guarantee: every rule of ``history.extended`` holds: digests, order, costs, and the limit after each.
    """
    return history_of(population, chain_from_json(value, "the ledger"))


def require_settled(charges: Sequence[Mapping[str, Any]], history: History) -> None:
    """Refuse a charge whose release the ledger has not settled for just that."""
    for charge in charges:
        name = charge["release"]
        if name is None:
            if charge["event"] != event_to_json(dp_accounting.NoOpDpEvent()):
                raise ValueError(f"stage {charge['stage']} charges something and names no release")
            continue
        found = history.releases.get(name)
        if found is None:
            raise ValueError(
                f"release {name} of stage {charge['stage']} is not in the ledger of population "
                f"'{history.population}': account where the ledger is that it was reserved in"
            )
        booked = (found.state, found.stage, found.split, found.sampler, found.event)
        if booked != ("settled", *(charge[key] for key in ("stage", "split", "sampler", "event"))):
            raise ValueError(
                f"the ledger says of release {name}: {found.state}, stage {found.stage}, split "
                f"{found.split}, sampler {found.sampler}, event {found.event}; the evidence charges another"
            )


def total_json(history: History, delta: float) -> dict[str, Any]:
    """Return what every release on the population spent, reservations at their worst case.

    Where the population has a limit: by its filter, whatever the releases were chosen by. Where it is public:
    by RDP at its best order, as if they had been declared beforehand; None where there is no bound.
    """
    found: dict[str, Any] = {"releases": len(history.releases), "limit_epsilon": None, "order": None}
    totals = totals_of(history)
    if totals is not None:
        limit = {"limit_epsilon": totals.limit.epsilon, "order": totals.limit.order}
        return {**found, **limit, "delta": totals.limit.delta, "epsilon": totals.epsilon}
    return {**found, "delta": delta, "epsilon": _declared_epsilon(history, delta)}


def _declared_epsilon(history: History, delta: float) -> float | None:
    if history.opened is None:
        return 0.0
    events: list[dp_accounting.DpEvent] = [
        dp_accounting.SelfComposedDpEvent(event, count) for event, count in grouped(history.releases.values())
    ]
    relation = history.opened.relation
    if any(is_nonprivate(event) for event in events):
        return None
    cell = cell_of(events, relation)
    accountant = "RDP" if "RDP" in cell.checks else cell.deciding
    epsilon = price(accountant, events, delta, relation, grid=FINE_GRID)
    return epsilon if math.isfinite(epsilon) else None
