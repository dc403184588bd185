"""What a comparison lends the processes that it starts: a name for Git, threads, ledger, scratch folder."""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer

from pipeline.git import identity
from pipeline.runner import StageFailed
from stages.core.new_release import NEW_RELEASE
from stages.core.scratch import scratch_folder
from stages.ledger.settings import VARIABLE, LedgerSettings

THREADS = "DUALPRIV_SPEED_THREADS"
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""glibc keeps the blocks that a step frees for the next step, and the system clears no pages in between."""


@contextmanager
def alone() -> Iterator[None]:
    """Refuse a second comparison in this checkout."""
    with (scratch_folder("compare") / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError("another comparison runs in this checkout: wait for it, or stop it") from None
        yield


@contextmanager
def failures_told() -> Iterator[None]:
    """Tell the last lines of a run that failed, and exit 2 for a mistake, 1 for any other failure."""
    try:
        yield
    except StageFailed as failure:
        print("\n".join([*failure.tail, f"dualpriv: {failure}"]), file=sys.stderr)
        raise typer.Exit(2 if failure.is_mistake else 1) from None


@contextmanager
def threads_of(jobs: int, wanted: int) -> Iterator[None]:
    """Share the cores among ``jobs``, unless somebody has said how many threads a run takes.

    What is asked of the allocator costs some memory and changes no figure; somebody's own word holds.
    """
    threads = str(wanted or max(1, (os.cpu_count() or 1) // jobs))
    wanted_of_all = {**KEEPS_MEMORY, THREADS: threads}
    with _environment({name: os.environ.get(name, value) for name, value in wanted_of_all.items()}):
        yield


@contextmanager
def of_the_checkout(*, new_release: bool = True) -> Iterator[None]:
    """Have clones use the ledger and the scratch folder of the checkout.

    With ``new_release``, for populations that are public, a run that was stopped half way is abandoned where
    it stands in the way.
    """
    given = {
        VARIABLE: LedgerSettings.load().location().render_as_string(hide_password=False),
        "DUALPRIV_SCRATCH": str(scratch_folder()),
        NEW_RELEASE: str(int(new_release)),
    }
    with _environment(given):
        yield


@contextmanager
def with_identity(root: Path) -> Iterator[None]:
    """Let experiments be committed where Git knows nobody."""
    with _environment(identity(root)):
        yield


@contextmanager
def _environment(given: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
