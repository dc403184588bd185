"""The ledger: what every release on every declared population spends, reserved before it is spent.

The store holds for each population a hash chain of entries (stages/privacy/chain.py), its key, and keyed
digests of its units. The rules are pure functions in stages/privacy; here they meet the database.
"""

import hmac
import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import dp_accounting
from sqlalchemy import Connection, insert, select

from stages.ledger.evidence import require_nothing_lost
from stages.ledger.population_key import KEY_BYTES, PopulationKey
from stages.ledger.settings import LedgerSettings
from stages.ledger.store import Store
from stages.ledger.tables import ENTRIES, SECRETS, UNITS
from stages.privacy.accountants import Relation
from stages.privacy.chain import Entry, entry_from_content
from stages.privacy.history import History, history_of
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit
from stages.privacy.reserving import (
    Reservation,
    Settlement,
    abandoned,
    entry_of,
    reserved,
    settled,
    split_recorded,
)

__all__ = ["Ledger", "Reservation", "Settlement"]
_CHUNK = 500
"""Units that one statement asks about."""


class Ledger:
    """What is kept about declared populations across runs, machines and checkouts."""

    def __init__(self, store: Store, limit: Limit) -> None:
        """Serve an open ``store``; ``limit`` is that of populations which are not public."""
        self._store = store
        self._limit = limit

    @classmethod
    def load(cls, *, make: bool = True) -> "Ledger":
        """Open the ledger that params.yaml and the environment name; it is made where ``make`` allows.

        A ledger that is missing, read-only, damaged, unreachable or of another program is a ValueError.
        """
        settings = LedgerSettings.load()
        store = Store(settings.location())
        store.open(make=make)
        return cls(store, settings.limit)

    @property
    def place(self) -> str:
        """Return where the ledger is: a path, or a URL without its password."""
        return self._store.place

    def population_key(self, population: str) -> PopulationKey:
        """Return the key of ``population``, made from operating-system randomness on first use.

        Guarantee: processes that ask for the first time at once get one key, whole.
        """
        name = f"population {population}"
        with self._store.reading() as connection:
            found = _secret(connection, name)
        if found is None:
            with self._store.writing() as connection:
                found = _make_secret(connection, name)
        return PopulationKey(found)

    def register(
        self,
        population: Population,
        units: Iterable[str],
        split_rule: str,
        public_units: Iterable[str] = (),
    ) -> None:
        """Record that ``units`` belong to ``population``, and by which rule they are split.

        ``public_units`` are those of the records that everybody may see.

        Guarantee: no unit belongs to two populations, so that no budget is evaded under another name; only
        keyed digests are kept. A unit of another population is refused, naming neither, and a rule that would
        break the limit (``reserving.split_recorded``); then nothing is recorded.
        """
        with self._store.writing() as connection:
            key = _make_secret(connection, "units")
            _require_nobodys(connection, {hmac.digest(key, unit.encode(), "sha256") for unit in public_units})
            _claim(connection, population.name, {hmac.digest(key, unit.encode(), "sha256") for unit in units})
            _append(
                connection,
                population.name,
                lambda entries, day: split_recorded(population.name, entries, split_rule, day),
            )

    def require_registered(self, population: str) -> None:
        """Refuse a population of which no units are registered: its budget would be anybody's."""
        if not any(entry.kind == "split" for entry in self.entries(population)):
            raise ValueError(
                f"the ledger at {self.place} knows no units of population '{population}': run `dvc repro -f "
                "ingest` on its records, or name the ledger that it was registered in"
            )

    def reserve(self, population: Population, relation: Relation, reservation: Reservation) -> Entry:
        """Reserve a release, before its first private record is read, and return its entry.

        Guarantee: on return the reservation is on disk, and everything reserved or spent on ``population``
        keeps its limit, whichever processes reserve at once. Asking again for the same release changes
        nothing. What is refused (``reserving.reserved``, ``evidence.require_nothing_lost``) leaves no trace.
        """

        def decide(entries: list[Entry], day: str) -> list[Entry]:
            if not population.public:
                require_nothing_lost(population.name, entries, self.place)
            return reserved(population, relation, self._limit, entries, reservation, day)

        return entry_of(self._append(population.name, decide), "reserve", reservation.release)

    def settle(self, population: str, settlement: Settlement) -> Entry:
        """Record what a reserved release executed and published, and return its entry.

        Guarantee: it never costs more than was reserved. Asking again with the same content changes nothing.
        """
        entries = self._append(population, lambda entries, day: settled(population, entries, settlement, day))
        return entry_of(entries, "settle", settlement.release)

    def abandon(self, population: str, release: str, event: dp_accounting.DpEvent, reason: str) -> Entry:
        """Charge ``event``, all that a release had begun, in place of its reservation; return its entry."""
        entries = self._append(
            population, lambda entries, day: abandoned(population, entries, release, event, reason, day)
        )
        return entry_of(entries, "abandon", release)

    def entries(self, population: str) -> list[Entry]:
        """Return the whole chain of ``population``, checked; empty where nothing is recorded of it."""
        with self._store.reading() as connection:
            found = _entries(connection, population)
        history_of(population, found)
        return found

    def history(self, population: str) -> History:
        """Return what the chain of ``population`` says, checked."""
        with self._store.reading() as connection:
            found = _entries(connection, population)
        return history_of(population, found)

    def populations(self) -> list[str]:
        """Return the populations of which something is recorded, sorted."""
        with self._store.reading() as connection:
            return sorted(connection.scalars(select(ENTRIES.c.population).distinct()))

    def _append(self, population: str, decide: Callable[[list[Entry], str], list[Entry]]) -> list[Entry]:
        with self._store.writing() as connection:
            return _append(connection, population, decide)


def _claim(connection: Connection, population: str, digests: set[bytes]) -> None:
    """Record that units belong to ``population``; refuse when one of them is another population's."""
    wanted, known = sorted(digests), set[bytes]()
    for start in range(0, len(wanted), _CHUNK):
        asked = UNITS.c.digest.in_(wanted[start : start + _CHUNK])
        for digest, owner in connection.execute(select(UNITS.c.digest, UNITS.c.population).where(asked)):
            if owner != population:
                raise ValueError(
                    "some private records are of units that belong to another declared population, whose "
                    "budget they would evade: declare them under that population, or leave them out"
                )
            known.add(bytes(digest))
    if known != digests:
        new = [{"digest": digest, "population": population} for digest in wanted if digest not in known]
        connection.execute(insert(UNITS), new)


def _require_nobodys(connection: Connection, digests: set[bytes]) -> None:
    """Refuse public records of units that belong to a population which is not public."""
    wanted, owners = sorted(digests), set[str]()
    for start in range(0, len(wanted), _CHUNK):
        asked = UNITS.c.digest.in_(wanted[start : start + _CHUNK])
        owners |= set(connection.scalars(select(UNITS.c.population).where(asked).distinct()))
    for owner in owners:
        opened = history_of(owner, _entries(connection, owner)).opened
        if opened is None or not opened.public:
            raise ValueError(
                "some public records are of units that belong to a declared population which is not public: "
                "leave them out of data.public"
            )


def _append(
    connection: Connection, population: str, decide: Callable[[list[Entry], str], list[Entry]]
) -> list[Entry]:
    """Append what ``decide`` makes of the chain and of today, and return the whole chain."""
    found = _entries(connection, population)
    new = decide(found, datetime.now(UTC).date().isoformat())
    if new:
        connection.execute(insert(ENTRIES), [_row(entry) for entry in new])
    return found + new


def _row(entry: Entry) -> dict[str, object]:
    return {
        "population": entry.population,
        "sequence": entry.sequence,
        "digest": entry.digest,
        "content": entry.content().decode(),
    }


def _entries(connection: Connection, population: str) -> list[Entry]:
    rows = connection.execute(
        select(ENTRIES.c.digest, ENTRIES.c.content)
        .where(ENTRIES.c.population == population)
        .order_by(ENTRIES.c.sequence)
    )
    return [_entry(population, number, *row) for number, row in enumerate(rows, 1)]


def _entry(population: str, number: int, digest: str, content: str) -> Entry:
    where = f"entry {number} of the ledger of population '{population}'"
    try:
        value = json.loads(content) | {"digest": digest}
    except (ValueError, TypeError):
        raise ValueError(f"{where} is damaged: restore the ledger from your backup") from None
    return entry_from_content(value, content.encode(), where)


def _secret(connection: Connection, name: str) -> bytes | None:
    found = connection.scalar(select(SECRETS.c.secret).where(SECRETS.c.name == name))
    return None if found is None else bytes(found)


def _make_secret(connection: Connection, name: str) -> bytes:
    """Return a secret of the ledger, made now unless it is there; only a writer may ask."""
    found = _secret(connection, name)
    if found is None:
        found = os.urandom(KEY_BYTES)
        connection.execute(insert(SECRETS), [{"name": name, "secret": found}])
    return found
