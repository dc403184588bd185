"""A small checkout with a pipeline of trivial stages, and an environment in which nothing reports home."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).parent / "small_checkout"
NAMES = ("start", "count", "by_hand", "account")
collect_ignore = ["small_checkout"]  # a checkout of its own, not modules of ours

# Prefect reads these when it is first imported.
PREFECT_HOME = tempfile.mkdtemp(prefix="dualpriv-prefect-")
os.environ |= {
    "PREFECT_HOME": PREFECT_HOME,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
}


def pytest_unconfigure() -> None:
    """Remove Prefect's home."""
    shutil.rmtree(PREFECT_HOME, ignore_errors=True)


def render_dvcfile(checkout: Path, *options: str) -> int:
    """Render or check ``dvc.yaml`` of a checkout with the modules that lie in it; return the exit code."""
    return subprocess.run([sys.executable, "-m", "pipeline.dvcfile", *options], cwd=checkout).returncode


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = tmp_path_factory.mktemp("small") / "checkout"
    shutil.copytree(SMALL, checkout)
    passing = shutil.ignore_patterns("__pycache__", "cache", "tmp")
    for name in ("pipeline", "stages/core", "stages/ledger", "stages/privacy", "stages/training", ".dvc"):
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=passing)
    for name in ("stages/__init__.py", ".dvcignore", ".gitignore", "prefect.yaml"):
        shutil.copy(REPOSITORY / name, checkout / name)
    graph = checkout / "pipeline/graph.py"
    graph.write_text(re.sub(r"^NAMES = \(.*?^\)", f"NAMES = {NAMES!r}", graph.read_text(), flags=re.M | re.S))
    subprocess.run(["git", "init", "--quiet", "."], cwd=checkout, check=True)
    assert render_dvcfile(checkout) == 0
    (checkout / "data").mkdir()
    (checkout / "data/by_hand.json").write_text('"made by hand"\n')
    commit_all(checkout)
    return checkout


def commit_all(checkout: Path) -> None:
    """Commit what lies in a checkout, as somebody."""
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@localhost")
    subprocess.run(["git", "add", "--all"], cwd=checkout, check=True)
    subprocess.run(
        ["git", *who, "commit", "--quiet", "--allow-empty", "-m", "as it is"], cwd=checkout, check=True
    )


@pytest.fixture
def small_pipeline(_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a fresh checkout of the small pipeline, which is also the current directory."""
    checkout = tmp_path / "checkout"
    shutil.copytree(_template, checkout)
    monkeypatch.chdir(checkout)
    for name in ("SMALL_SECONDS", "SMALL_CRASH_AT", "DUALPRIV_SCRATCH", "DVC_ROOT", "DUALPRIV_NEW_RELEASE"):
        monkeypatch.delenv(name, raising=False)
    yield checkout
    left = processes_in(checkout)
    assert not left, f"processes outlived the test: {left}"


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in ``folder``, this one left out (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if Path(os.readlink(entry / "cwd")) == folder:
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it ended while we looked
                continue
    return found
