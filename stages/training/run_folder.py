"""Where one run lives between crashes: lock, run key, intents, checkpoint.

Named by the fingerprint of its inputs: ``scratch/<stage>/<fingerprint>/``, outside Git and DVC. One writer at
a time; the run key is made once and destroyed with the folder when the output has been recorded.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.files import read_json, write_bytes, write_json
from stages.core.scratch import scratch_folder
from stages.privacy.stream import KEY_BYTES, RunKey
from stages.training.intents import read_attempts, read_header


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def intents(self) -> Path:
        """Return the intents file."""
        return self.path / "intents.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Return the checkpoint."""
        return self.path / "checkpoint.safetensors"

    def run_key(self) -> RunKey:
        """Return this run's key, fresh from the operating system the first time."""
        path = self.path / "run.key"
        if not path.exists():
            if self.checkpoint.exists():
                raise ValueError(
                    f"{path} is gone but {self.checkpoint.name} is there: remove {self.path} to abandon "
                    "that run"
                )
            write_bytes(path, RunKey.fresh().secret, mode=0o600)
        secret = path.read_bytes()
        if len(secret) != KEY_BYTES:
            raise ValueError(
                f"{path} is not a run key of {KEY_BYTES} bytes: remove {self.path} to abandon that run"
            )
        return RunKey(secret)

    def finish(self, trace: Path) -> None:
        """Note that the output was written; the run may be resumed until DVC has recorded it."""
        write_json(self.path / "done.json", {"trace": hashlib.md5(trace.read_bytes()).hexdigest()})

    def finished_as(self) -> str | None:
        """Return the MD5 (DVC's name) of the trace this run ended with; None while it is unfinished."""
        done = self.path / "done.json"
        return str(read_json(done)["trace"]) if done.exists() else None


@contextmanager
def open_run(stage: str, fingerprint: str, recorded_trace: str | None) -> Iterator[RunFolder]:
    """Yield the run's folder, locked.

    A run that ended with the trace which DVC has recorded is over: running the stage again is a new release,
    with a new key.
    """
    with _lock(stage, fingerprint):
        folder = RunFolder(scratch_folder(stage, fingerprint))
        if recorded_trace is not None and folder.finished_as() == recorded_trace:
            shutil.rmtree(folder.path)
            folder = RunFolder(scratch_folder(stage, fingerprint))
        yield folder


def discard_run(stage: str, fingerprint: str) -> None:
    """Destroy a run's key and checkpoints."""
    path = scratch_folder(stage) / fingerprint
    key = path / "run.key"
    if key.exists():
        with open(key, "r+b") as file:
            file.write(os.urandom(KEY_BYTES))
            os.fsync(file.fileno())
    shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Abandoned:
    """An unfinished run of other inputs: its intents count as spent."""

    fingerprint: str
    header: dict[str, Any]
    steps: int


def abandoned_runs(stage: str, fingerprint: str, population: str) -> list[Abandoned]:
    """Return the unfinished runs of ``stage`` on ``population`` with another fingerprint.

    A run that a living process holds is not among them.
    """
    found = []
    for path in sorted(scratch_folder(stage).iterdir()):
        folder = RunFolder(path)
        if not path.is_dir() or path.name == fingerprint or folder.finished_as() is not None:
            continue
        if not folder.intents.exists() or not _is_free(stage, path.name):
            continue
        try:
            header, attempts = read_header(folder.intents), read_attempts(folder.intents)
        except json.JSONDecodeError:
            continue
        if attempts and header["plan"]["population"]["name"] == population:
            found.append(Abandoned(path.name, header, len(attempts)))
    return found


def _lock_path(stage: str, fingerprint: str) -> Path:
    return scratch_folder(stage) / f"{fingerprint}.lock"


@contextmanager
def _lock(stage: str, fingerprint: str) -> Iterator[None]:
    with open(_lock_path(stage, fingerprint), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is running stage {stage} on the same inputs: wait for it, or stop it "
                "and run again"
            ) from None
        yield


def _is_free(stage: str, fingerprint: str) -> bool:
    with open(_lock_path(stage, fingerprint), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
