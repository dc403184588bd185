"""What every test may ask for."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def ledger_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the ledger of every test in a folder of its own, also where a test starts processes."""
    path = tmp_path / "ledger" / "ledger.sqlite3"
    monkeypatch.setenv("DUALPRIV_LEDGER", str(path))
    return path


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a small random LLaVA of real classes."""
    import torch

    from models import write_tiny_llava

    torch.set_num_threads(1)
    return write_tiny_llava(tmp_path_factory.mktemp("models") / "tiny-llava")


@pytest.fixture(scope="session")
def _checkouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    (shared / "checkouts").mkdir(exist_ok=True)
    return shared / "checkouts"


@pytest.fixture
def built_checkout(_checkouts: Path, tmp_path: Path) -> Path:
    """Return a copy of a small checkout in which nothing has run."""
    from checkout import once

    return Path(shutil.copytree(once(_checkouts, "built"), tmp_path / "checkout"))


@pytest.fixture
def ran_checkout(_checkouts: Path, tmp_path: Path) -> Path:
    """Return a copy of a small checkout whose whole pipeline has run."""
    from checkout import once

    return Path(shutil.copytree(once(_checkouts, "ran"), tmp_path / "checkout", symlinks=True))


@pytest.fixture
def encoded_checkout(_checkouts: Path, tmp_path: Path) -> Path:
    """Return a copy of a small checkout in which everything before finetune has run."""
    from checkout import once

    return Path(shutil.copytree(once(_checkouts, "encoded"), tmp_path / "checkout", symlinks=True))
