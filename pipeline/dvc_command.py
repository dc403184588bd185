"""The program ``dvc``, asked in a checkout."""

import subprocess
import sys
from pathlib import Path

from pipeline.runner import environment


def dvc(root: Path, *arguments: str, missing_is_empty: bool = False) -> str:
    """Return what DVC says; what it refuses is a ValueError, or nothing where ``missing_is_empty``."""
    command = [sys.executable, "-m", "dvc", *arguments]
    found = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True)
    if found.returncode and not missing_is_empty:
        said = (found.stderr or found.stdout).strip().splitlines()
        raise ValueError(f"dvc {arguments[0]} in {root}: {said[-1] if said else 'failed'}")
    return "" if found.returncode else found.stdout.strip()
