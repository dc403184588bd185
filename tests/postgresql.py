"""A PostgreSQL server of the test's own, on a loopback port, from the programs that Debian installs."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

INITDB = ("-A", "scram-sha-256", "--no-sync")
SERVER = ("--listen_addresses=127.0.0.1", "--unix_socket_directories=", "--fsync=off")


class Cluster:
    """A running server; every test gets a schema of its own."""

    def __init__(self, port: int, password: str, begin: Callable[[], subprocess.Popen]) -> None:
        """Name the server, which ``begin`` starts."""
        self.port, self.password, self.made = port, password, 0
        self._begin, self._server = begin, begin()
        wait_for(self, self._server)

    def stop(self) -> None:
        """End the server; what it stored stays."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(timeout=60)

    def start(self) -> None:
        """Start it again."""
        self._server = self._begin()
        wait_for(self, self._server)

    def url(self, **settings: str) -> str:
        """Return a URL whose connections have these settings."""
        options = quote(" ".join(f"-c {key}={value}" for key, value in settings.items()))
        return f"postgresql://owner:{self.password}@127.0.0.1:{self.port}/postgres?options={options}"

    def new_place(self, **settings: str) -> str:
        """Return the URL of a place for tables in which there are none."""
        self.made += 1
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA ledger_{self.made}")
        return self.url(search_path=f"ledger_{self.made}", **settings)


def binaries() -> Path:
    """Return the folder of the newest server that is installed, or skip the test."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        pytest.skip("no PostgreSQL server is installed (Debian's package postgresql)")
    return found[-1].parent


def account() -> dict[str, object]:
    """Return as whom the server runs: root may not, so one of Debian's accounts does."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


@contextmanager
def running() -> Iterator[Cluster]:
    """Start a server, and end it with everything that it stored."""
    programs, who, password = binaries(), account(), secrets.token_hex(8)
    folder = Path(tempfile.mkdtemp(prefix="ledger-postgresql-", dir="/tmp"))
    try:
        (folder / "password").write_text(password)
        if who:
            for path in (folder, folder / "password"):
                shutil.chown(path, str(who["user"]))
        data, port, unprivileged = folder / "data", free_port(), {"cwd": "/", **who}
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", "owner", f"--pwfile={folder / 'password'}", *INITDB],
            capture_output=True,
            text=True,
            **unprivileged,
        )
        assert made.returncode == 0, made.stderr
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [programs / "postgres", "-D", data, f"--port={port}", *SERVER]
        cluster = Cluster(port, password, lambda: subprocess.Popen(command, **quiet, **unprivileged))
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def wait_for(cluster: Cluster, server: subprocess.Popen) -> None:
    """Return when the server answers."""
    for _ in range(300):
        assert server.poll() is None, "the server ended at its start"
        try:
            psycopg.connect(cluster.url(), connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")
