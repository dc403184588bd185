"""From `prefect deploy` to a finished run, with a real server, pool and worker, and without a GPU."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import processes_in
from tests.pipeline.test_runner import steps_counted, until

pytestmark = pytest.mark.slow
PATIENCE = 240.0
WORKER = ("worker", "start", "--pool", "a100", "--run-once")


def prefect(*arguments: str) -> str:
    """Run the prefect command in the current directory and return what it printed."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def call(path: str, body: object = None) -> Any:
    """Ask the server's API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        os.environ["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def is_healthy() -> bool:
    try:
        return call("/health") is True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run `prefect server start` on a free port, with a home and two work pools of its own."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with pytest.MonkeyPatch.context() as patch, open(home / "server.log", "w") as log:
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        with subprocess.Popen(command, stdout=log, stderr=log, cwd=home) as process:
            try:
                until(lambda: is_healthy() or process.poll() is not None, PATIENCE)
                assert process.poll() is None, (home / "server.log").read_text()
                for pool in ("local", "a100"):
                    prefect("work-pool", "create", pool, "--type", "process")
                yield
            finally:
                process.terminate()


def start_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Deploy the flow of ``checkout`` and ask for a run of it; return the run's id."""
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    prefect("deploy", "--all")
    prefect("deployment", "run", "finetune/a100")
    [run] = call("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})
    return str(run["id"])


def state_of(run: str) -> str:
    return str(call(f"/flow_runs/{run}")["state"]["type"])


@pytest.mark.parametrize(("kind", "frozen"), [("small_pipeline", "by_hand"), ("built_checkout", "pretrain")])
def test_finetune_a100_completes_without_a_gpu(
    server: None, kind: str, frozen: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once with trivial stages, once with every stage of ours on a tiny model."""
    checkout: Path = request.getfixturevalue(kind)
    monkeypatch.chdir(checkout)
    run = start_run(checkout, monkeypatch)
    log = prefect(*WORKER)
    assert state_of(run) == "COMPLETED", log
    assert (checkout / "data/account/statement.json").exists()
    status = [sys.executable, "-m", "dvc", "status", "--json"]
    answer = subprocess.run(status, capture_output=True, text=True, check=True)
    assert set(json.loads(answer.stdout)) <= {frozen}, "only what is run by hand has no record here"
    assert processes_in(checkout) == []


def test_a_cancelled_run_ends_its_stage_and_is_not_tried_again(
    server: None, small_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = small_pipeline / "params.yaml"
    params.write_text(params.read_text().replace("steps: 3", "steps: 100000"))
    monkeypatch.setenv("SMALL_SECONDS", "0.2")
    run = start_run(small_pipeline, monkeypatch)
    with subprocess.Popen([sys.executable, "-m", "prefect", "--no-prompt", *WORKER], cwd="/") as worker:
        until(lambda: steps_counted(small_pipeline), PATIENCE)
        prefect("flow-run", "cancel", run)
        worker.wait(PATIENCE)
    assert state_of(run) == "CANCELLED"
    assert processes_in(small_pipeline) == []
    assert len(set(steps_counted(small_pipeline))) == 1, "one process took every step: no second attempt"
