"""What ran: versions of the libraries that decide results, and the Git commit."""

import platform
import subprocess
from importlib.metadata import version

_LIBRARIES = ("torch", "transformers", "peft", "numpy", "cryptography", "dp-accounting", "safetensors")


def versions() -> dict[str, str]:
    """Return the version of Python and of every library that touches a private record."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def commit() -> str:
    """Return the current Git commit, or ``unknown`` outside a Git checkout."""
    return said_by_git("rev-parse", "HEAD") or "unknown"


def said_by_git(*arguments: str) -> str | None:
    """Return what Git says, None where it refuses or is not there."""
    try:
        found = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
