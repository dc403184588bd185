"""A real Prefect server on a free port of this machine, and what is asked of it."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgresql import free_port

from tests.pipeline.test_runner import until

PATIENCE = 240.0
POOLS = ("local", "a100", "h100")


def prefect(*arguments: str) -> str:
    """Run the prefect command in the current directory and return what it printed."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


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


class Server:
    """A server process, and the home in which its database lies."""

    def __init__(self, home: Path) -> None:
        """Choose a port; nothing is started yet."""
        self.home, self.port = home, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        """Everything that Prefect keeps."""
        return self.home / "prefect.db"

    def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        where = ("--host", "127.0.0.1", "--port", str(self.port))
        command = [sys.executable, "-m", "prefect", "server", "start", *where]
        with open(self.home / "server.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.home, start_new_session=True)
        self._process = process
        until(lambda: is_healthy() or process.poll() is not None, PATIENCE)
        assert process.poll() is None, (self.home / "server.log").read_text()

    def end(self, number: signal.Signals) -> None:
        """Send a signal to it and its children, and wait until it has ended."""
        assert self._process is not None
        os.killpg(self._process.pid, number)
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run `prefect server start` on a free port, with a home and work pools of its own."""
    found = Server(tmp_path_factory.mktemp("prefect"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(found.home))
        patch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{found.port}/api")
        found.start()
        try:
            for pool in POOLS:
                prefect("work-pool", "create", pool, "--type", "process")
            yield found
        finally:
            found.end(signal.SIGTERM)


def deployed_run(name: str, *parameters: str) -> str:
    """Deploy the flow of the checkout that is the current directory, ask for a run, and return its id."""
    prefect("deploy", "--name", name)
    given = [word for parameter in parameters for word in ("--param", parameter)]
    prefect("deployment", "run", f"finetune/{name}", *given)
    [run] = call("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})
    return str(run["id"])


def worker(pool: str) -> tuple[str, ...]:
    return ("worker", "start", "--pool", pool, "--run-once")


def state_of(run: str) -> str:
    return str(call(f"/flow_runs/{run}")["state"]["type"])


def log_of(run: str) -> str:
    """Return what a run has logged, line by line."""
    asked = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    return "\n".join(line["message"] for line in call("/logs/filter", asked))
