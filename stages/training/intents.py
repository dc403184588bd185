"""The append-only record of what a run set out to do, written before it does it.

Line 1 is the plan and the identity of the run; every later line names a step whose private rows are about to
be read. A line is on disk (fsync) before the read, so a crash can lose a result but never a charge.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from stages.core.files import sync_directory


class Intents:
    """One run's intents file."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        """Open the file, or begin it with ``header``; another header is a ValueError."""
        self.path = path
        if path.exists():
            _mend(path)
        if path.exists() and path.stat().st_size:
            if read_header(path) != json.loads(json.dumps(header)):
                raise ValueError(f"{path} belongs to another run: remove {path.parent} to abandon that run")
        else:
            _append(path, header)
            sync_directory(path.parent)

    def record(self, step: int) -> None:
        """Note, durably, that ``step`` is about to read private rows."""
        _append(self.path, {"step": step})

    def attempts(self) -> Counter[int]:
        """Return how often each step was begun."""
        return read_attempts(self.path)


def read_header(path: Path) -> dict[str, Any]:
    """Return the first line of an intents file."""
    with open(path) as file:
        header: dict[str, Any] = json.loads(file.readline())
    return header


def read_attempts(path: Path) -> Counter[int]:
    """Return how often each step was begun.

    A last line that a crash cut off was never acted on and does not count.
    """
    lines = path.read_text().split("\n")[1:-1]
    return Counter(int(json.loads(line)["step"]) for line in lines)


def _append(path: Path, value: dict[str, Any]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (json.dumps(value, sort_keys=True) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _mend(path: Path) -> None:
    """Cut off a last line that a crash left incomplete."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with open(path, "r+b") as file:
            file.truncate(len(whole))
            os.fsync(file.fileno())
