"""Price what was released, by the deciding accountant and every valid check side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dp_accounting

from stages.privacy.accounting import ACCOUNTANT, Relation, epsilon_of, rdp_epsilon_of
from stages.privacy.events import event_from_json
from stages.privacy.evidence import CHARGES
from stages.privacy.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Priced:
    """The epsilon of something that was released."""

    what: str
    delta: float
    relation: Relation
    accountant: str
    epsilon: float
    """By the deciding accountant; infinity without privacy."""
    checks: Mapping[str, float]
    """By every accountant that is valid for these events and this relation; may be none."""


def priced(what: str, events: Sequence[dp_accounting.DpEvent], delta: float, relation: Relation) -> Priced:
    """Return the price of events composed."""
    check = rdp_epsilon_of(events, delta, relation)
    return Priced(
        what=what,
        delta=delta,
        relation=relation,
        accountant=ACCOUNTANT,
        epsilon=epsilon_of(events, delta, relation),
        checks={} if check is None else {"RDP": check},
    )


def priced_charges(charges: Mapping[str, Any], delta: float, relation: Relation) -> list[Priced]:
    """Return the price of every release among the charges of one pass."""
    return [
        priced(
            f"release {charge['release']} ({charge['stage']}, {charge['split']})", [event], delta, relation
        )
        for charge in charges["charges"]
        if charge.get("release")
        for event in [event_from_json(charge["event"])]
    ]


def disagreements(found: Sequence[Priced]) -> Iterator[Finding]:
    """Yield every check that disagrees with the deciding accountant beyond the gap that is known."""
    for price in found:
        for name, check in price.checks.items():
            if not 0.999 * price.epsilon <= check <= 2 * price.epsilon + 1:
                yield Finding(
                    CHARGES,
                    f"{price.what}: {name} gives epsilon {check:.6f} where {price.accountant} gives "
                    f"{price.epsilon:.6f}, further apart than the two are known to be",
                )
