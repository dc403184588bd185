"""The command ``dualpriv ledger``: budgets across runs, shown, exported, and given back by dead runs."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.ledger_page import ledger_page
from stages.core.contract import lookup
from stages.core.entry import quiet_accountants
from stages.core.files import write_json, write_text
from stages.core.params import read_params
from stages.ledger.evidence import EXPORTED
from stages.ledger.ledger import Ledger
from stages.privacy.chain import chain_to_json
from stages.privacy.event_words import event_in_words
from stages.privacy.events import event_from_json
from stages.privacy.history import History
from stages.privacy.totals import totals_of


def show_command(*, as_json: bool, html: Path | None = None) -> None:
    """Print the account of every population and its releases, or write it to ``html`` as a page."""
    quiet_accountants()
    ledger = Ledger.load(make=False)
    histories = [ledger.history(name) for name in ledger.populations()]
    found = {"ledger": ledger.place, "populations": [_account(history) for history in histories]}
    if html is not None:
        write_text(html, ledger_page(found, _sentence))
        print(f"{html} shows the ledger: {len(histories)} populations")
    elif as_json:
        print(json.dumps(found, indent=2, sort_keys=True))
    else:
        _print(found)


def export_command(population: str | None, to: Path | None) -> None:
    """Write the whole chain of a population, which is checked first."""
    quiet_accountants()
    name = population or str(lookup(read_params(), "population.name"))
    entries = Ledger.load(make=False).entries(name)
    if not entries:
        raise ValueError(f"nothing is recorded of population '{name}': `dualpriv ledger` shows what is")
    file = to or EXPORTED / file_name(name)
    write_json(file, chain_to_json(name, entries))
    print(f"{file} holds {len(entries)} entries of population {name}, up to {entries[-1].digest}")


def abandon_command(release: str, reason: str) -> None:
    """End a reservation that no run will settle, at the price of everything that its run began."""
    from stages.training.abandoned import give_up  # it loads torch, and showing needs none

    quiet_accountants()
    ledger = Ledger.load(make=False)
    history = _history_with(ledger, release)
    name, found, opened = history.population, history.releases[release], history.opened
    assert opened is not None
    if found.state != "reserved":
        raise ValueError(
            f"release {release} is {found.state} already: only what is reserved can be abandoned"
        )
    begun = give_up(found.stage, release, name)
    event = event_from_json(found.event) if begun is None else begun
    entry = ledger.abandon(name, release, event, reason)
    charged = "all that it had reserved" if begun is None else "what its intents say it began"
    print(f"release {release} is charged {charged} (entry {entry.sequence} of population {name})")


def file_name(population: str) -> str:
    """Return the name of a population's file: safe anywhere, and no other population's.

    >>> file_name("mnist-5000"), file_name("../Ward 3")
    ('mnist-5000.json', 'Ward-3-049c0495.json')
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", population).strip("-")
    if safe and safe == population:
        return f"{safe}.json"
    return f"{safe or 'population'}-{hashlib.sha256(population.encode()).hexdigest()[:8]}.json"


def _history_with(ledger: Ledger, release: str) -> History:
    """Return the history that has a release."""
    for name in ledger.populations():
        history = ledger.history(name)
        if release in history.releases:
            return history
    raise ValueError(f"the ledger {ledger.place} knows no release {release!r}: `dualpriv ledger` lists them")


def _account(history: History) -> dict[str, Any]:
    """Return what the ledger says of one population; sums are Renyi DP at the order of its filter."""
    opened, totals = history.opened, totals_of(history)
    return {
        "population": history.population,
        "entries": history.length,
        "head": history.head,
        "split_rules": list(history.rules),
        "composition": history.composition,
        "public": None if opened is None else opened.public,
        "unit": None if opened is None else opened.unit,
        "relation": None if opened is None else opened.relation,
        "max_units": None if opened is None else opened.max_units,
        "account": None
        if totals is None
        else {
            "epsilon_limit": totals.limit.epsilon,
            "delta": totals.limit.delta,
            "order": totals.limit.order,
            "budget": totals.limit.budget,
            "spent": totals.spent,
            "reserved": totals.reserved,
            "remaining": totals.remaining,
            "epsilon": totals.epsilon,
            "splits": {
                split: {"spent": part.spent, "reserved": part.reserved, "remaining": part.remaining}
                for split, part in totals.splits.items()
            },
        },
        "releases": [
            {
                "release": release.release,
                "stage": release.stage,
                "split": release.split,
                "state": release.state,
                "day": release.day,
                "sampler": release.sampler,
                "cost": release.cost,
                "event": dict(release.event),
            }
            for release in history.releases.values()
        ],
    }


def _print(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(Text(f"Ledger {found['ledger']}"), soft_wrap=True)
    if not found["populations"]:
        console.print("Nothing is recorded yet.")
    for account in found["populations"]:
        console.print()
        console.print(Text(_sentence(account)), soft_wrap=True)
        if account["account"] is not None:
            console.print(_sums(account["account"]))
        if account["releases"]:
            console.print(_releases(account["releases"]))


def _sentence(account: dict[str, Any]) -> str:
    name = f"Population {account['population']}"
    if account["public"] is None:
        return f"{name}: its units are registered, and nothing was released."
    if account["public"]:
        return f"{name} is public: releases are recorded, and nothing limits them."
    sums = account["account"]
    return (
        f"{name} ({account['unit']}, {account['relation']}, at most {account['max_units']}): epsilon "
        f"{sums['epsilon']:.4g} of {sums['epsilon_limit']:g} at delta {sums['delta']:g}; splits compose in "
        f"{'parallel' if account['composition'] == 'parallel' else 'sequence'}."
    )


def _sums(sums: dict[str, Any]) -> Table:
    table = Table(title=f"Renyi DP at order {sums['order']:g}", title_justify="left")
    table.add_column("split")
    for name in ("spent", "reserved", "remaining", "limit"):
        table.add_column(name, justify="right")
    for split, part in [*sums["splits"].items(), ("composed", sums)]:
        row = (part["spent"], part["reserved"], part["remaining"], sums["budget"])
        table.add_row(split, *(f"{value:.4g}" for value in row))
    return table


def _releases(releases: list[dict[str, Any]]) -> Table:
    table = Table()
    for name in ("release", "stage", "split", "state", "since", "cost", "event"):
        table.add_column(name, justify="right" if name == "cost" else "left", no_wrap=name == "release")
    for release in releases:
        cost = "-" if release["cost"] is None else f"{release['cost']:.4g}"
        words = event_in_words(release["event"])
        cells = [release[key] for key in ("release", "stage", "split", "state", "day")]
        table.add_row(*(escape(cell) for cell in (*cells, cost, words)))
    return table
