"""What dies under a deployment ends cleanly; the next run ends with the bits of one that nothing disturbed.

Every test is a row of the operator's table: ``DUALPRIV_FAULT_TABLE`` names a file that gets one JSON line
each (``python -m benchmarks.deployment_faults``).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkout import dvc, edit_params
from postgresql import running
from runs import INJECTOR, undisturbed

from stages.core.files import sha256
from stages.ledger.ledger import Ledger
from tests.pipeline.conftest import commit_all
from tests.pipeline.prefect_server import (
    PATIENCE,
    Server,
    deployed_run,
    log_of,
    prefect,
    server,
    state_of,
)
from tests.pipeline.test_runner import until

__all__ = ["server"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive")]
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


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return what writes a row of the table, where one is asked for."""

    def write(fault: str, seen: str, seconds: float, is_identical: bool) -> None:
        row = {"fault": fault, "seen": seen, "seconds": round(seconds, 1), "identical": is_identical}
        if "DUALPRIV_FAULT_TABLE" in os.environ:
            with open(os.environ["DUALPRIV_FAULT_TABLE"], "a") as file:
                file.write(json.dumps(row) + "\n")
        assert is_identical, row

    return write


def in_training(site: Site) -> None:
    until(lambda: site.steps() > 40, PATIENCE)


def clean(site: Site, keep: list[int]) -> float:
    """Wait until no process but ``keep`` is left; return how long that took."""
    start = time.monotonic()
    until(lambda: set(site.processes()) <= set(keep), 120)
    return time.monotonic() - start


def is_as_undisturbed(site: Site, tmp_path: Path, **more: str) -> bool:
    """Compare the adapter with that of a run with the same key in a clone that nothing disturbs."""
    folder = site.folder
    assert folder is not None and list(folder.glob(".*.partial")) == []
    assert site.reservations() == ["settled"], "one release, paid once"
    command = ["git", "show", f"{refs(site)[-1]}:data/finetune/trace.json"]
    trace = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [step["step"] for step in trace["steps"]] == list(range(STEPS)), "no step is missing or twice"
    twin = Path(shutil.copytree(site.checkout, tmp_path / "twin", symlinks=True))
    undisturbed(twin, (folder / "run.key").read_bytes(), folder.name, **more)
    return bool(trace["adapter"] == {file.name: sha256(file) for file in (twin / "models/adapter").iterdir()})


def refs(site: Site) -> list[str]:
    """Return the branches that runs have brought back, the oldest first."""
    asked = ["git", "for-each-ref", "--sort=creatordate", "--format=%(refname:short)", "refs/heads/runs"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("victim", ["stages.finetune", "dvc repro"])
def test_a_stage_or_dvc_that_is_killed_is_tried_again(
    server: Server, site: Site, tmp_path: Path, record: Callable[..., None], victim: str
) -> None:
    site.work()
    run = site.run()
    in_training(site)
    words = victim.split()
    start = time.monotonic()
    os.kill(site.processes(*words)[-1], signal.SIGKILL)
    begun = site.steps()
    until(lambda: site.steps() > begun + 5 or state_of(run) in ENDED, PATIENCE)
    seconds = time.monotonic() - start
    assert site.ended(run) == "COMPLETED", log_of(run)
    seen = "the flow tries the stage again, which goes on"
    record(f"kill -9 of `{victim}`", seen, seconds, is_as_undisturbed(site, tmp_path))


@pytest.mark.parametrize("victim", ["flow", "worker"])
def test_a_flow_or_worker_that_is_killed_ends_everything_and_the_next_run_goes_on(
    server: Server, site: Site, tmp_path: Path, record: Callable[..., None], victim: str
) -> None:
    worker = site.work()
    run = site.run()
    in_training(site)
    flow = [pid for pid in site.processes("prefect") if pid != worker.pid]
    os.kill(worker.pid if victim == "worker" else flow[0], signal.SIGKILL)
    seconds = clean(site, [] if victim == "worker" else [worker.pid])
    if victim == "worker":
        worker.wait()
        site.work()
    seen = state_of(run)
    assert site.ended(site.run()) == "COMPLETED"
    said = f"every process ends; the run is {seen}; the next one goes on"
    record(f"kill -9 of the {victim}", said, seconds, is_as_undisturbed(site, tmp_path))


def test_a_server_that_is_killed_and_comes_back_does_not_end_a_run(
    server: Server, site: Site, tmp_path: Path, record: Callable[..., None]
) -> None:
    site.work()
    run = site.run()
    in_training(site)
    server.end(signal.SIGKILL)
    start = time.monotonic()
    begun = site.steps()
    until(lambda: site.steps() > begun + 20, PATIENCE)
    server.start()
    seconds = time.monotonic() - start
    assert site.ended(run) == "COMPLETED", log_of(run)
    seen = "training goes on, and is told when the server is back"
    record("kill -9 of the server, and its restart", seen, seconds, is_as_undisturbed(site, tmp_path))


def test_a_cancelled_run_saves_and_the_next_one_goes_on(
    server: Server, site: Site, tmp_path: Path, record: Callable[..., None]
) -> None:
    worker = site.work()
    run = site.run()
    in_training(site)
    prefect("flow-run", "cancel", run)
    seconds = clean(site, [worker.pid])
    until(lambda: state_of(run) == "CANCELLED", 60)
    assert site.ended(site.run()) == "COMPLETED"
    seen = "finished steps are saved; the next run goes on"
    record("`prefect flow-run cancel`", seen, seconds, is_as_undisturbed(site, tmp_path))


def test_a_full_scratch_disk_is_said_and_not_tried_again(
    server: Server, site: Site, tmp_path: Path, record: Callable[..., None]
) -> None:
    order = {"act": "full", "at": 40, "path": r"/scratch/finetune/", "calls": ["write", "fsync"]}
    log = {"log": str(tmp_path / "calls.log")}
    worker = site.work(PYTHONPATH=str(INJECTOR), INJECT=json.dumps(order | log))
    run = site.run()
    assert site.ended(run) == "FAILED"
    seconds = clean(site, [worker.pid])
    assert "no space left on disk" in log_of(run) and log_of(run).count("Running stage 'finetune'") == 1
    site.send_home()
    site.work()
    assert site.ended(site.run()) == "COMPLETED"
    seen = "one sentence, no second try; with space again the next run goes on"
    record("a full scratch disk", seen, seconds, is_as_undisturbed(site, tmp_path))


def test_two_deployments_of_one_configuration_train_once(
    server: Server, site: Site, tmp_path: Path, record: Callable[..., None]
) -> None:
    first, second = site.work("a100"), site.work("h100")
    run = site.run("a100")
    in_training(site)
    other = site.run("h100")
    assert site.ended(other) == "FAILED", log_of(other)
    assert "another process is running stage finetune" in log_of(other)
    assert site.ended(run) == "COMPLETED", log_of(run)
    seconds = clean(site, [first.pid, second.pid])
    seen = "one trains, the other is refused; one release in the ledger"
    record("two deployments at once", seen, seconds, is_as_undisturbed(site, tmp_path))


def test_a_ledger_that_is_away_for_a_minute_costs_a_minute(
    server: Server, site: Site, tmp_path: Path, record: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as cluster:
        monkeypatch.setenv("DUALPRIV_LEDGER", cluster.new_place())
        dvc(site.checkout, "repro", "--force", "ingest", "encode", "plan", **ledger())
        commit_all(site.checkout)
        site.work()
        run = site.run()
        in_training(site)
        cluster.stop()
        start = time.monotonic()
        until(lambda: site.steps() == STEPS, PATIENCE)
        time.sleep(max(0.0, 60 - (time.monotonic() - start)))
        assert state_of(run) == "RUNNING"
        cluster.start()
        assert site.ended(run) == "COMPLETED", log_of(run)
        seconds = time.monotonic() - start
        assert "is away: waiting for it" in log_of(run)
        seen = "training goes on and waits for the ledger at its end"
        record("PostgreSQL down for a minute", seen, seconds, is_as_undisturbed(site, tmp_path, **ledger()))


def ledger() -> dict[str, str]:
    """Return the ledger of the test, for commands that run with an environment of their own."""
    return {"DUALPRIV_LEDGER": os.environ["DUALPRIV_LEDGER"]}
