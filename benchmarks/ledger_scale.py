"""What the ledger costs as it grows: ``python -m benchmarks.ledger_scale --json FILE``.

A population that is not public, whose releases (each reserved, then settled) have 50 distinct events, in an
SQLite file. Per number of entries, in a process of its own: the chain read, checked entry by entry and
totalled, with every event priced for the first time (cold) and with the prices that the process keeps
(cached); one more reservation, which does all of that under the lock and waits for the disk; and the same
releases composed by PLD from their distinct events, as if they had been declared beforehand.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import dp_accounting
from sqlalchemy import URL, insert

from benchmarks.machine import about
from stages.core.entry import quiet_accountants
from stages.core.files import write_json
from stages.ledger.ledger import Ledger, Reservation
from stages.ledger.store import Store
from stages.ledger.tables import ENTRIES
from stages.privacy.accountants import Relation
from stages.privacy.accounting import epsilon_of, step_event
from stages.privacy.chain import Body, Entry, OpenBody, ReserveBody, SettleBody, SplitBody, new_entry
from stages.privacy.events import event_to_json
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit, open_filter, stored_cost
from stages.privacy.split_rule import keyed_hash_rule
from stages.privacy.totals import Totals, grouped, totals_of

SIZES = (1_000, 10_000, 100_000)
EVENTS = [step_event(0.001 + kind / 1e5, 20.0 + kind, 100 + kind) for kind in range(50)]
PEOPLE = Population(name="people", public=False, max_units=10_000, unit="person")
LIMIT = Limit(epsilon=12.0, delta=1e-5)
RELATION: Relation = "add_or_remove_one"


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    sizes = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "ledger.sqlite3"
            write(opened(file), size)
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                sizes.append({"entries": size, **alone.apply(measured, [file])})
    result = {"about": about(), "events": len(EVENTS), "sizes": sizes}
    write_json(given.json, result)
    print(render(result))


def opened(file: Path) -> Store:
    """Return the open database in ``file``."""
    store = Store(URL.create("sqlite", database=str(file)))
    store.open(make=True)
    return store


def write(store: Store, size: int) -> None:
    """Write a chain of ``size`` entries in one transaction, as no stage can."""
    entries: list[Entry] = []
    for body in islice(bodies(), size):
        entries.append(new_entry(PEOPLE.name, entries, "2031-02-03", body))
    rows = [
        {
            "population": entry.population,
            "sequence": entry.sequence,
            "digest": entry.digest,
            "content": entry.content().decode(),
        }
        for entry in entries
    ]
    with store.writing() as connection:
        connection.execute(insert(ENTRIES), rows)


def bodies() -> Iterator[Body]:
    """Yield the rule, the opening, and releases without end, each reserved and settled."""
    limit = open_filter(LIMIT, EVENTS[0], RELATION)
    yield SplitBody(rule=keyed_hash_rule("patient", 0.2))
    yield OpenBody(public=False, unit="person", relation=RELATION, max_units=10_000, limit=limit)
    events = [event_to_json(event) for event in EVENTS]
    costs = [stored_cost(event, limit.order, RELATION) for event in events]
    number = 0
    while True:
        same: dict[str, Any] = {
            "release": f"{number:032x}",
            "event": events[number % 50],
            "cost": costs[number % 50],
        }
        yield ReserveBody(stage="finetune", split="train", sampler="poisson", **same)
        released = {f"models/adapter/{name}": f"{number:064x}" for name in ("config", "weights")}
        yield SettleBody(released=released, code="0" * 64, commit="0" * 40, versions={"torch": "2"}, **same)
        number += 1


def measured(file: Path) -> dict[str, float]:
    """Return the seconds that each act takes, and the size of the file."""
    quiet_accountants()
    ledger = Ledger(opened(file), LIMIT)
    reservation = Reservation(
        release="f" * 32, stage="finetune", split="train", sampler="poisson", event=EVENTS[0]
    )
    found = {
        "cold": seconds(lambda: total(ledger)),
        "cached": seconds(lambda: total(ledger)),
        "reserve": seconds(lambda: ledger.reserve(PEOPLE, RELATION, reservation)),
    }
    releases = ledger.history(PEOPLE.name).releases.values()
    events = [dp_accounting.SelfComposedDpEvent(event, count) for event, count in grouped(releases)]
    found["PLD"] = seconds(lambda: epsilon_of(events, LIMIT.delta, RELATION))
    return found | {"MiB": file.stat().st_size / 2**20}


def total(ledger: Ledger) -> Totals | None:
    """Return the account of the population, from the whole chain."""
    return totals_of(ledger.history(PEOPLE.name))


def seconds(act: Callable[[], object]) -> float:
    """Return how long ``act`` takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def render(result: dict[str, Any]) -> str:
    """Return the Markdown table."""
    lines = [
        "# What the ledger costs as it grows",
        "",
        f"`python -m benchmarks.ledger_scale --json FILE`; {result['about']}; SQLite; {result['events']} "
        "distinct events; seconds.",
        "",
        "| entries | total, cold | total, cached | one more reservation | PLD of all | file, MiB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for size in result["sizes"]:
        figures = " | ".join(f"{size[name]:.2f}" for name in ("cold", "cached", "reserve", "PLD", "MiB"))
        lines.append(f"| {size['entries']:,} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
