"""Acts on the ledger that are killed before one call of the system after the other."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ledger_acts
from ledgers import PEOPLE
from processes import killed_at

from stages.ledger.ledger import Ledger

State = tuple[tuple[str, ...], int, int]


def state_of(file: Path) -> State:
    """Return the kinds of entries, and the numbers of units and of secrets, as another process finds them."""
    if not file.exists():
        return (), 0, 0
    raw = sqlite3.connect(file)
    try:
        if not raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchall():
            return (), 0, 0
        units = raw.execute("SELECT count(*) FROM units").fetchone()[0]
        secrets = raw.execute("SELECT count(*) FROM secrets").fetchone()[0]
    finally:
        raw.close()
    return tuple(entry.kind for entry in Ledger.load().entries(PEOPLE.name)), units, secrets


def sweep(act: str, given: tuple[Any, ...], step: int) -> str:
    """Kill an act before every ``step``-th call of the system, each time upon the same ledger, and go on.

    Return how many kills there were, and how many of them found the act done. Anything but the state before
    and the state after is an AssertionError, and so is a second attempt that does not end in the latter.
    """
    file = Path(os.environ["DUALPRIV_LEDGER"])
    template, do = file.parent.with_name("template"), getattr(ledger_acts, act)
    shutil.copytree(file.parent, template) if file.exists() else template.mkdir()

    def restore() -> None:
        shutil.rmtree(file.parent, ignore_errors=True)
        shutil.copytree(template, file.parent)

    before = state_of(file)
    do(*given)
    after = state_of(file)
    assert before != after
    kills = done = 0
    while True:
        restore()
        if not killed_at(1 + kills * step, lambda: do(*given)):
            assert state_of(file) == after
            return f"{kills} {done}"
        found = state_of(file)
        assert found in (before, after), f"killed before call {1 + kills * step}: {found}"
        do(*given)
        assert state_of(file) == after, f"after a kill before call {1 + kills * step}"
        kills, done = kills + 1, done + (found == after)


def sweep_server(kills: int, step: int) -> str:
    """Kill reservations and settlements on a server, each of another release, and go on."""
    for number in range(kills):
        for act, kind in ((ledger_acts.reserve_little, "reserve"), (ledger_acts.settle_little, "settle")):
            was_killed = killed_at(1 + number * step, _with(act, number))
            act(number)
            entries = Ledger.load().entries(PEOPLE.name)
            mine = [entry.kind for entry in entries if getattr(entry.body, "release", None) == _name(number)]
            assert mine.count(kind) == 1, f"{kind} {number}: {mine}"
            if not was_killed and kind == "settle":
                return str(number)
    return str(kills)


def _with(act: Callable[[int], object], number: int) -> Callable[[], object]:
    return lambda: act(number)


def _name(number: int) -> str:
    return ledger_acts.release(number)
