"""The secret key of a declared population: splits and salts hang on it, noise never does.

A 0600 file in ``scratch/ledger``. Whoever loses it gets other splits and other salts, and so a new release.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path

from stages.core.files import PARTIAL, write_bytes
from stages.core.scratch import scratch_folder

KEY_BYTES = 32


@dataclass(frozen=True)
class PopulationKey:
    """A keyed hash that outsiders cannot guess."""

    secret: bytes = field(repr=False)

    def digest(self, purpose: str, content: bytes) -> bytes:
        """Return 32 bytes that depend on the key, the purpose and the content alone."""
        return hmac.new(self.secret, purpose.encode() + b"\0" + content, hashlib.sha256).digest()

    def fraction(self, purpose: str, content: bytes) -> float:
        """Return a keyed uniform number in [0, 1), a multiple of 2^-53 and so an exact float."""
        return (int.from_bytes(self.digest(purpose, content)[:7], "big") >> 3) / 2**53


def population_key(population: str) -> PopulationKey:
    """Return the key of ``population``, made from operating-system randomness on first use.

    Guarantee: processes that ask for the first time at once get one key, whole.
    """
    path = key_path(population)
    if not path.exists():
        _make(path)
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise ValueError(f"{path} is not a population key of {KEY_BYTES} bytes: restore it from your backup")
    return PopulationKey(secret)


def key_path(population: str) -> Path:
    """Return where the key of ``population`` lies."""
    return scratch_folder("ledger") / f"{hashlib.sha256(population.encode()).hexdigest()[:16]}.key"


def _make(path: Path) -> None:
    offered = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    write_bytes(offered, os.urandom(KEY_BYTES), mode=0o600)
    try:
        os.link(offered, path)
    except FileExistsError:
        pass  # another process was first: its key stands
    finally:
        offered.unlink()
