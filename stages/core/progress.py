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
_SHOWN = 20


class Advance(Protocol):
    """Tell that the work has reached ``done`` of the total."""

    def __call__(self, done: int) -> None:
        """Show it."""


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Yield a function that shows how many of ``total`` parts are done."""
    every = max(1, total // _SHOWN)
    if os.environ.get("RANK", "0") != "0":  # the process that leads shows it for all
        yield lambda done: None
    elif os.environ.get(EVENTS):
        yield lambda done: _event(done, total) if done % every == 0 or done == total else None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        yield lambda done: _line(label, done, total) if done % every == 0 or done == total else None


def _event(done: int, total: int) -> None:
    print("@@ " + json.dumps({"event": "progress", "step": done, "of": total}), flush=True)


def _line(label: str, done: int, total: int) -> None:
    print(f"{label}: {done} of {total}", flush=True)
