"""What the ledger still allows: its own rules are tried on a run, and nothing is written."""

import math
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stages.ledger.evidence import require_nothing_lost
from stages.ledger.ledger import Ledger
from stages.ledger.settings import LedgerSettings
from stages.privacy.accountants import Relation
from stages.privacy.chain import Entry, ReserveBody
from stages.privacy.history import history_of
from stages.privacy.plan import Beside, Plan
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit
from stages.privacy.reserving import Reservation, reserved
from stages.privacy.totals import totals_of
from stages.training.settling import reservation


@dataclass(frozen=True)
class Allowed:
    """How many passes like one plan the ledger still takes."""

    passes: int | None
    """None: any number, for the population is public."""
    refused: str | None
    """Why there is not even one."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """The entries of one population, as they stand; no method changes them."""

    population: Population
    relation: Relation
    limit: Limit
    place: str | None
    """Where the ledger is; None where none was begun yet."""
    entries: tuple[Entry, ...]
    lost: str | None
    """What is wrong between the ledger and the evidence that lies here; then it takes no release."""

    @classmethod
    def of(cls, population: Population, relation: Relation) -> "Books":
        """Read the ledger that params.yaml and the environment name; a damaged one is a ValueError."""
        settings = LedgerSettings.load()
        url, ledger = settings.location(), None
        if url.get_backend_name() != "sqlite" or Path(url.database or "").exists():
            ledger = Ledger.load(make=False)
        entries = ledger.entries(population.name) if ledger is not None else []
        place, lost = ledger.place if ledger is not None else None, None
        if not population.public:
            try:
                require_nothing_lost(population.name, entries, place or str(url.database))
            except ValueError as error:
                lost = str(error)
        return cls(
            population=population,
            relation=relation,
            limit=settings.limit,
            place=place,
            entries=tuple(entries),
            lost=lost,
        )

    def allow(self, plan: Plan) -> Allowed:
        """Return how many passes of ``plan``, the charges beside it included, the ledger takes.

        What is reserved now counts as spent. Further passes cost what the first does.
        """
        if self.lost is not None:
            return Allowed(0, self.lost)
        entries = list(self.entries)
        for asked in _reservations(plan):
            try:
                entries += reserved(self.population, self.relation, self.limit, entries, asked, _today())
            except ValueError as error:
                return Allowed(0, str(error))
        totals = totals_of(history_of(self.population.name, entries))
        if totals is None:
            return Allowed(None, None)
        new = [entry.body for entry in entries[len(self.entries) :] if isinstance(entry.body, ReserveBody)]
        cost = {
            split: math.fsum(body.cost or 0 for body in new if body.split == split) for split in totals.splits
        }
        if totals.composition == "sequential":
            cost = dict.fromkeys(cost, math.fsum(cost.values()))
        more = min(
            (int(part.remaining // cost[split]) for split, part in totals.splits.items() if cost[split]),
            default=0,
        )
        return Allowed(1 + more, None)

    def words(self) -> str:
        """Say what is left before anything of this budget."""
        if self.population.public:
            return "the population is declared public: releases are recorded, and none is refused"
        if self.lost is not None:
            return self.lost
        totals = totals_of(history_of(self.population.name, self.entries))
        if totals is None:
            return (
                f"all of epsilon {self.limit.epsilon:g} at delta {self.limit.delta:g} is left: nothing was "
                "reserved yet"
            )
        return (
            f"{totals.splits['train'].remaining:.4g} of {totals.limit.budget:.4g} is left for training, in "
            f"Renyi DP at order {totals.limit.order:g}; what is spent and reserved comes to epsilon "
            f"{totals.epsilon:.4g} of {totals.limit.epsilon:g} at delta {totals.limit.delta:g}"
        )


def _reservations(plan: Plan) -> list[Reservation]:
    """Return what a pass reserves, in the order of its stages."""
    before = [_beside(charge) for charge in plan.others.charges if charge.split == "train"]
    after = [_beside(charge) for charge in plan.others.charges if charge.split == "heldout"]
    return [*before, reservation(plan, "finetune", secrets.token_hex(16)), *after]


def _beside(charge: Beside) -> Reservation:
    return Reservation(
        release=secrets.token_hex(16),
        stage=charge.stage,
        split=charge.split,
        sampler="none" if charge.rate == 1 else "poisson",
        event=charge.event(),
    )


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
