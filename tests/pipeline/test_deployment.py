"""From `prefect deploy` to a finished run, with a real server, work pool and worker, on a machine without a GPU."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.conftest import processes_in

pytestmark = pytest.mark.slow
PATIENCE = 240.0


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


def call(path: str, body: object = None) -> object:
    """Ask the server's API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def is_healthy() -> bool:
    try:
        return call("/health") is True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run `prefect server start` on a free port with a home of its own."""
    port = free_port()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(tmp_path / "server.log", "w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + PATIENCE
            while not is_healthy():
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < end, "the server did not come up"
                time.sleep(0.5)
            yield
        finally:
            process.terminate()


def test_finetune_a100_completes_without_a_gpu(small_pipeline: Path, server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(small_pipeline))
    for pool in ("local", "a100"):
        prefect("work-pool", "create", pool, "--type", "process")
    prefect("deploy", "--all")
    prefect("deployment", "run", "finetune/a100")
    log = prefect("worker", "start", "--pool", "a100", "--run-once")
    [run] = call("/flow_runs/filter", {})  # type: ignore[misc]
    assert run["state"]["type"] == "COMPLETED", log
    assert json.loads((small_pipeline / "data/account/statement.json").read_text())["epsilon"] == 4
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--json", "account", "count", "start"], capture_output=True)
    assert json.loads(status.stdout) == {}
    assert processes_in(small_pipeline) == []
