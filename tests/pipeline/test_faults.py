"""What dies under a deployment ends cleanly; the next run ends with the bits of one that nothing disturbed.

Every test is a row of the operator's table: ``DUALPRIV_FAULT_TABLE`` names a file that gets one JSON line
each (``python -m benchmarks.deployment_faults``).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import dvc
from postgresql import running
from runs import INJECTOR, undisturbed

from stages.core.files import sha256
from tests.pipeline.conftest import commit_all
from tests.pipeline.prefect_server import (
    PATIENCE,
    Server,
    log_of,
    prefect,
    server,
    state_of,
)
from tests.pipeline.site import ENDED, STEPS, Site, site
from tests.pipeline.test_runner import until

__all__ = ["server", "site"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive")]


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
    [training] = site.processes("stages.finetune")
    os.kill(training, signal.SIGSTOP)  # until the other one has come as far
    other = site.run("h100")
    assert site.ended(other) == "FAILED", log_of(other)
    os.kill(training, signal.SIGCONT)
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
