"""The append-only record of what a run set out to do, written before it does it.

Line 1 is the plan and the identity of the run; every later line names a step whose private rows are about to
be read, and the mechanism that reads them. A line is on disk (fsync) before the read, so a crash can lose a
result but never a charge.
"""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.files import sync_directory

ABANDONED = "-abandoned"
"""What the name of a run's folder gets that its owner has given up."""


@dataclass(frozen=True)
class Begun:
    """A step that read private rows, how often it was begun, and under which mechanism."""

    step: int
    attempts: int
    mechanism: dict[str, Any]


class Intents:
    """One run's intents file."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        """Open the file, or begin it with ``header``; another header is a ValueError."""
        self.path = path
        self._begun: set[int] = set()
        if path.exists():
            _mend(path)
        found = read_header(path) if path.exists() else None
        if found is None:
            _append(path, header)
        elif found != json.loads(json.dumps(header)):
            raise ValueError(f"{path} belongs to another run: {way_out(path.parent)}")
        sync_directory(path.parent)  # an earlier process may have been killed before it did
        self._begun.update(begun.step for begun in read_begun(path))

    def record(self, step: int, mechanism: dict[str, Any]) -> None:
        """Note, durably, that ``step`` is about to read private rows by ``mechanism``.

        A step that was begun before is marked as a replay: after a crash it draws the same bits and spends
        nothing.
        """
        _append(self.path, {"step": step, "replay": step in self._begun, "mechanism": mechanism})
        self._begun.add(step)

    def begun(self) -> list[Begun]:
        """Return every step that was begun, in order."""
        return read_begun(self.path)


def way_out(folder: Path) -> str:
    """Say how a run that cannot go on is abandoned without losing its charge."""
    return f"to abandon that run and keep its charge, rename {folder} to {abandoned_path(folder).name}"


def abandoned_path(folder: Path) -> Path:
    """Return where the folder of a run goes that is given up: a sibling that is not there yet."""
    name, number = f"{folder.name}{ABANDONED}", 1
    while folder.with_name(name).exists():
        number += 1
        name = f"{folder.name}{ABANDONED}-{number}"
    return folder.with_name(name)


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the first line of an intents file; None where a crash cut it off, before any step."""
    lines = _lines(path)
    return lines[0] if lines else None


def read_begun(path: Path) -> list[Begun]:
    """Return every step that was begun, in order.

    A last line that a crash cut off was never acted on and does not count; any other broken line is a
    ValueError, for then the charge is unknown.
    """
    found: dict[int, Begun] = {}
    for number, line in enumerate(_lines(path)[1:], 2):
        if not isinstance(line.get("step"), int) or not isinstance(line.get("mechanism"), dict):
            raise _damaged(path, number)
        earlier = found.get(line["step"])
        if line.get("replay") is not (earlier is not None):
            raise _damaged(path, number)
        if earlier is not None and earlier.mechanism != line["mechanism"]:
            raise ValueError(f"{path} says that step {earlier.step} was begun under two mechanisms")
        attempts = 1 + (earlier.attempts if earlier else 0)
        found[line["step"]] = Begun(line["step"], attempts, line["mechanism"])
    return [found[step] for step in sorted(found)]


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            value = json.loads(line)
        except ValueError:
            raise _damaged(path, number) from None
        if not isinstance(value, dict):
            raise _damaged(path, number)
        found.append(value)
    return found


def _damaged(path: Path, number: int) -> ValueError:
    return ValueError(
        f"{path} is damaged at line {number}, so what that run spent is unknown: restore the file, or move "
        f"{path.parent} away and count all its planned steps as spent"
    )


def _append(path: Path, value: dict[str, Any]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        line = (json.dumps(value, sort_keys=True) + "\n").encode()
        if os.write(handle, line) != len(line):  # the torn line never happened, nor may the step
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    except OSError as error:
        error.filename = str(path)
        raise
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
