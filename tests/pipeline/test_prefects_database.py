"""A run leaves stages, public step numbers and released figures in Prefect's database, nothing private."""

import re
import sqlite3
from pathlib import Path

import pytest

from tests.pipeline.prefect_server import Server, call, deployed_run, log_of, server
from tests.pipeline.site import Site, site

__all__ = ["server", "site"]
pytestmark = pytest.mark.slow
PRIVATE_WORDS = ("loss", "batch", "gradient norm", "clipped", "sampled", "skipped")


def everything(database: Path) -> str:
    """Return all text and all blobs of the database, these also in hex."""
    found = []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                found += [value.hex() if isinstance(value, bytes) else str(value) for value in row]
    return "\n".join(found)


def test_nothing_private_is_in_prefects_database(server: Server, site: Site) -> None:
    call("/variables/", {"name": "control", "value": "somebody"})
    assert "somebody" in everything(server.database), "control: the search finds what is there"
    site.work()
    run = deployed_run("a100", 'targets=["finetune"]', "approval=none")
    assert site.ended(run) == "COMPLETED", log_of(run)
    [key] = [path.read_bytes() for path in site.state.rglob("run.key")]  # destroyed when the run is accounted
    report = deployed_run("a100", "approval=none")  # from there to the end, which shows metrics and statement
    assert site.ended(report) == "COMPLETED", log_of(report)
    kept = everything(server.database)
    assert "progress-finetune" in kept and "privacy-statement" in kept and "metrics" in kept
    assert key.hex() not in kept and str(key) not in kept
    assert not re.search(r"\bunit \d+\b", kept), "no unit is named"
    said = log_of(run) + log_of(report)
    lines = [line for line in said.splitlines() if "dvc.yaml:" not in line]
    assert not [line for line in lines for word in PRIVATE_WORDS if word in line.lower()], said
    artifacts = call("/artifacts/filter", {"limit": 100})
    assert {artifact["type"] for artifact in artifacts} <= {"progress", "markdown", "table"}
