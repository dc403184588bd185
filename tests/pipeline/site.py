"""A committed checkout with workers around it, on a real Prefect server of the test's."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import dvc, edit_params

from stages.ledger.ledger import Ledger
from tests.pipeline.conftest import commit_all
from tests.pipeline.prefect_server import PATIENCE, deployed_run, state_of
from tests.pipeline.test_runner import until

STEPS = 400
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
TRAINING = ('targets=["finetune"]', "approval=none")


class Site:
    """A committed checkout, the state of its workers, and the workers."""

    def __init__(self, checkout: Path, state: Path) -> None:
        """Nothing runs yet."""
        self.checkout, self.state = checkout, state
        self._workers: list[subprocess.Popen[bytes]] = []

    def work(self, pool: str = "a100", **more: str) -> subprocess.Popen[bytes]:
        """Start a worker that stays."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start", "--pool", pool]
        with open(self.state.with_name("worker.log"), "ab") as log:
            found = subprocess.Popen(command, cwd="/", env=os.environ | more, stdout=log, stderr=log)
        self._workers.append(found)
        return found

    def send_home(self) -> None:
        """End the workers."""
        for found in self._workers:
            found.terminate()
            found.wait(timeout=60)
        self._workers.clear()

    @property
    def folder(self) -> Path | None:
        """The folder of the training run."""
        found = [
            path for path in self.state.glob("scratch/finetune/*") if re.fullmatch("[0-9a-f]{32}", path.name)
        ]
        return found[0] if found else None

    def steps(self) -> int:
        """Return how many steps the run has begun."""
        intents = self.folder / "intents.jsonl" if self.folder else None
        return intents.read_text().count("\n") - 1 if intents and intents.exists() else 0

    def processes(self, *words: str) -> list[int]:
        """Return those of this test's processes whose command line has all ``words``."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    said = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    theirs = (entry / "environ").read_bytes().decode(errors="replace")
                except OSError:  # it has ended
                    continue
                is_ours = str(self.state) in theirs and "server start" not in said and "uvicorn" not in said
                if said and is_ours and all(word in said for word in words):
                    found.append(int(entry.name))
        return sorted(found)

    def run(self, name: str = "a100") -> str:
        """Ask for a run."""
        return deployed_run(name, *TRAINING)

    def ended(self, run: str) -> str:
        """Wait for the end of a run and return how it ended."""
        until(lambda: state_of(run) in ENDED, PATIENCE)
        return state_of(run)

    def reservations(self) -> list[str]:
        """Return the states of all training runs in the ledger."""
        releases = Ledger.load().history("tiny").releases.values()
        return [release.state for release in releases if release.stage == "finetune"]


@pytest.fixture
def site(encoded_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    checkout, state = encoded_checkout, tmp_path / "state"
    edit_params(checkout, {r"steps: 6": f"steps: {STEPS}", r"checkpoint_every: \d+": "checkpoint_every: 20"})
    dvc(checkout, "repro", "--single-item", "plan")
    commit_all(checkout)
    state.mkdir(mode=0o700)
    (state / "dvc-cache").symlink_to(checkout / ".dvc/cache")
    shutil.copytree(checkout / "scratch", tmp_path / "ledger", dirs_exist_ok=True)
    monkeypatch.chdir(checkout)
    for name in ("DUALPRIV_PRESET", "DUALPRIV_CLONE", "PYTHONPATH", "DVC_ROOT", "DUALPRIV_SCRATCH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("STATE", str(state)), ("PYTHON", sys.executable)):
        monkeypatch.setenv(f"DUALPRIV_{name}", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = Site(checkout, state)
    try:
        yield found
    finally:
        found.send_home()
        for pid in found.processes():
            os.kill(pid, signal.SIGKILL)
