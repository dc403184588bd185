"""What every test may ask for."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a small random LLaVA of real classes."""
    import torch
    from models import write_tiny_llava

    torch.set_num_threads(1)
    return write_tiny_llava(tmp_path_factory.mktemp("models") / "tiny-llava")
