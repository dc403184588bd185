"""A working directory with the parameters of a ledger, on SQLite and, in the slow tier, on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgresql import Cluster, running

PARAMS = "ledger:\n  url: null\n  limit: {epsilon: 12.0, delta: 1.0e-5}\n"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """Yield a PostgreSQL server."""
    with running() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, which holds parameters of a ledger and nothing else."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "XDG_STATE_HOME", "DUALPRIV_SCRATCH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, ledger_file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where the ledger of the test is, which the environment names: a path or a URL."""
    if request.param == "sqlite":
        return str(ledger_file)
    url = request.getfixturevalue("postgresql").new_place()
    monkeypatch.setenv("DUALPRIV_LEDGER", url)
    return url
