"""The secret key of a declared population: splits and salts hang on it, noise never does.

It lies in the ledger. Whoever loses it gets other splits and other salts, and so a new release.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

KEY_BYTES = 32


@dataclass(frozen=True)
class PopulationKey:
    """A keyed hash that outsiders cannot guess."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a key that is cut off."""
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"a population key has {KEY_BYTES} bytes: restore the ledger from your backup")

    def digest(self, purpose: str, content: bytes) -> bytes:
        """Return 32 bytes that depend on the key, the purpose and the content alone."""
        return hmac.new(self.secret, purpose.encode() + b"\0" + content, hashlib.sha256).digest()

    def fraction(self, purpose: str, content: bytes) -> float:
        """Return a keyed uniform number in [0, 1), a multiple of 2^-53 and so an exact float."""
        return (int.from_bytes(self.digest(purpose, content)[:7], "big") >> 3) / 2**53
