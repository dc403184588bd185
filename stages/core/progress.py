"""Show how far long work is: a bar in a terminal, plain lines in a log, events for the runner.

Only public numbers are shown: which step of how many, never a count that depends on private records. Logs and
events tell a twentieth of the work at a time: when a single step ends would show how many units it drew.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

EVENTS = "DUALPRIV_EVENTS"
"""The runner sets this variable and reads lines that begin with ``@@``."""
PARTS = 20
"""How many parts logs and events tell of."""


class Advance(Protocol):
    """Tell that the work has reached ``done`` of the total."""

    def __call__(self, done: int) -> None:
        """Show it."""


@contextmanager
def progress(label: str, total: int, *, rate: bool = False) -> Iterator[Advance]:
    """Yield a function that shows how many of ``total`` parts are done, with ``rate`` how many a second."""
    every = max(1, total // PARTS)
    if os.environ.get("RANK", "0") != "0":  # the process that leads shows it for all
        yield lambda done: None
    elif os.environ.get(EVENTS):
        yield lambda done: _event(done, total) if done % every == 0 or done == total else None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        speed = (TextColumn("{task.speed!s:.5} a second"),) if rate else ()
        with Progress(*columns, *speed, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield lambda done: _line(label, done, total) if done % every == 0 or done == total else None


def told_in_parts(count: int, advance: Advance) -> Iterator[int]:
    """Yield 0 to ``count`` - 1 and tell after each of ``PARTS`` parts, so that ``count`` is never shown.

    >>> list(told_in_parts(3, lambda done: None))
    [0, 1, 2]
    """
    for part in range(PARTS):
        yield from range(count * part // PARTS, count * (part + 1) // PARTS)
        advance(part + 1)


def in_parts(count: int, advance: Advance) -> Advance:
    """Return what is told of ``count`` things and tells of ``PARTS`` parts, so that ``count`` is never shown.

    >>> told = []
    >>> tell = in_parts(60, told.append)
    >>> for done in range(1, 10):
    ...     tell(done)
    >>> told
    [1, 2, 3]
    """
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        while told < PARTS * done // count:
            told += 1
            advance(told)

    return tell


def _event(done: int, total: int) -> None:
    print("@@ " + json.dumps({"event": "progress", "step": done, "of": total}), flush=True)


def _line(label: str, done: int, total: int) -> None:
    print(f"{label}: {done} of {total}", flush=True)
