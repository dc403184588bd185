"""Where one run lives between crashes: lock, run key, intents, checkpoint.

Named by the fingerprint of its inputs: ``scratch/<stage>/<fingerprint>/``, outside Git and DVC. One writer at
a time; the run key is made once and destroyed when the output has been accounted, sealed to an archive first
where there is one. The intents are kept for good: what a run began is spent, whatever became of its output.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.canonical import canonical_json
from stages.core.files import PARTIAL, read_json, sync_directory, write_bytes, write_json
from stages.core.provenance import commit
from stages.core.scratch import scratch_folder
from stages.privacy.stream import KEY_BYTES, RunKey
from stages.training.intents import read_begun, read_header, way_out
from stages.training.key_archive import RunKeyArchive

RETIRED = "retired"
"""The folder of runs whose steps a privacy statement covers."""


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

    @property
    def key(self) -> Path:
        """Return the run key's file."""
        return self.path / "run.key"

    @property
    def noised(self) -> Path:
        """Return the file of the noised sum of a release that is one."""
        return self.path / "noised.json"

    @property
    def diagnostics(self) -> Path:
        """Return the file of what was measured on the way, which nobody else sees."""
        return self.path / "preflight.json"

    @property
    def inputs(self) -> Path:
        """Return the file that says what the run's inputs were."""
        return self.path / "inputs.json"

    def note_inputs(self, values: dict[str, Any]) -> None:
        """Keep what the run's fingerprint is a digest of, to say later what has changed."""
        if not self.inputs.exists():
            write_bytes(self.inputs, canonical_json(values), mode=0o600)

    def commit_at_start(self) -> str:
        """Return the Git commit at which the run began, whatever is committed before it ends."""
        begun = read_header(self.intents) if self.intents.exists() else None
        return str(begun["commit"]) if begun is not None else commit()

    def run_key(self) -> RunKey:
        """Return this run's key, fresh from the operating system the first time; only the leader asks."""
        if not self.key.exists():
            begun = self.intents.exists() and read_header(self.intents) is not None
            if begun or self.checkpoint.exists():
                raise ValueError(f"{self.key} is gone but its run has begun: {way_out(self.path)}")
            write_bytes(self.key, RunKey.fresh().secret, mode=0o600)
        return self.known_key()

    def known_key(self) -> RunKey:
        """Return the key that the process that leads has made; a ValueError where it is not to be seen."""
        if not self.key.exists():
            raise ValueError(
                f"{self.key} is not here: processes of one run need one scratch folder that all of them see; "
                "set DUALPRIV_SCRATCH to one on a shared file system"
            )
        secret = self.key.read_bytes()
        if len(secret) != KEY_BYTES:
            raise ValueError(f"{self.key} is not a run key of {KEY_BYTES} bytes: {way_out(self.path)}")
        return RunKey(secret)

    def finish(self, trace: Path) -> None:
        """Note that the output was written; the run may be resumed until DVC has recorded it."""
        write_json(self.path / "done.json", {"trace": hashlib.md5(trace.read_bytes()).hexdigest()})

    def finished_as(self) -> str | None:
        """Return the MD5 (DVC's name) of the trace this run ended with; None while it is unfinished."""
        done = self.path / "done.json"
        return str(read_json(done)["trace"]) if done.exists() else None

    def destroy_secrets(self, archive: RunKeyArchive) -> None:
        """Overwrite and remove the run key; remove the checkpoint.

        Guarantee: the key of a release is overwritten only after ``archive`` keeps it or wants none. Before
        its intents have a header, a key has drawn nothing and is no release's.
        """
        if self.key.exists():
            header = read_header(self.intents) if self.intents.exists() else None
            if header is not None:
                archive.keep(self.run_key(), str(header["release"]), self.path)
            with open(self.key, "r+b") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            self.key.unlink()
        self.checkpoint.unlink(missing_ok=True)
        self.noised.unlink(missing_ok=True)
        self.diagnostics.unlink(missing_ok=True)
        self.inputs.unlink(missing_ok=True)
        self.sweep()

    def sweep(self) -> None:
        """Remove what writers that were killed left half-written; only the holder of the lock may."""
        for left in self.path.glob(f".*{PARTIAL}"):
            left.unlink()


def run_folder(stage: str, fingerprint: str) -> RunFolder:
    """Return the folder of a run, which need not be there."""
    return RunFolder(scratch_folder(stage) / fingerprint)


@contextmanager
def open_run(
    stage: str,
    fingerprint: str,
    recorded_trace: str | None,
    is_abandoned: Callable[[str], bool] = lambda release: False,
) -> Iterator[RunFolder]:
    """Yield the run's folder, locked.

    A run that ended with the trace which DVC has recorded is over, and so is one whose release was given up:
    running the stage again is a new release, with a new key. The earlier run is set aside with its intents,
    to be charged.
    """
    with _lock(stage, fingerprint):
        folder = RunFolder(scratch_folder(stage, fingerprint))
        header = read_header(folder.intents) if folder.intents.exists() else None
        is_recorded = recorded_trace is not None and folder.finished_as() == recorded_trace
        if is_recorded or (header is not None and is_abandoned(str(header["release"]))):
            _set_aside(folder)
            folder = RunFolder(scratch_folder(stage, fingerprint))
        folder.sweep()
        yield folder


def is_begun(stage: str, fingerprint: str, recorded_trace: str | None) -> bool:
    """Tell whether a run of these inputs has begun a step and is not over: going on is no new release."""
    folder = run_folder(stage, fingerprint)
    if not folder.intents.exists() or not read_begun(folder.intents):
        return False
    return recorded_trace is None or folder.finished_as() != recorded_trace


def retire_run(stage: str, release: str) -> bool:
    """Destroy the secrets of a run that the ledger has closed and put its intents away; False if it was kept.

    A run is kept while a living process holds it. The name of its folder comes from its own intents, never
    from evidence.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", release):
        raise ValueError(f"the evidence names a release {release!r}, which no run is called")
    for path in sorted(scratch_folder(stage).iterdir()):
        folder = RunFolder(path)
        header = read_header(folder.intents) if path.name != RETIRED and folder.intents.exists() else None
        if header is None or header["release"] != release:
            continue
        try:
            with _lock(stage, path.name):
                folder.destroy_secrets(RunKeyArchive.load())
                _move(folder.path, scratch_folder(stage, RETIRED) / release)
                return True
        except _Held:
            return False
    return False


def _set_aside(folder: RunFolder) -> None:
    folder.destroy_secrets(RunKeyArchive.load())
    number = 1
    while folder.path.with_name(f"{folder.path.name}-{number}").exists():
        number += 1
    _move(folder.path, folder.path.with_name(f"{folder.path.name}-{number}"))


def _move(path: Path, target: Path) -> None:
    os.replace(path, target)
    sync_directory(path.parent)
    sync_directory(target.parent)


def _lock_path(stage: str, name: str) -> Path:
    return scratch_folder(stage) / f"{name}.lock"


class _Held(ValueError):
    """A living process has the run."""


@contextmanager
def _lock(stage: str, name: str) -> Iterator[None]:
    with open(_lock_path(stage, name), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _Held(
                f"another process is running stage {stage} on the same inputs or people: wait for it, or "
                "stop it and run again"
            ) from None
        yield


def is_free(stage: str, name: str) -> bool:
    """Tell whether no living process holds a run."""
    try:
        with _lock(stage, name):
            return True
    except _Held:
        return False
