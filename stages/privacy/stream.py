"""Secret randomness: a counter-based cipher stream under a run key.

A stream is a function of (run key, resolved-input fingerprint, stage, purpose, step, name, draw) and of
nothing else, so a run that was killed and resumed draws the same bits, and no two purposes share any.
Nothing here touches a global generator.
"""

import hashlib
import hmac
import json
import os
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

KEY_BYTES = 32
_BLOCK = 2**15
"""Numbers drawn at once; even, for they come in pairs."""
Purpose = Literal["sampling", "rows", "noise", "release"]


@dataclass(frozen=True)
class RunKey:
    """A 256-bit secret, fresh for every release. Whoever holds it can subtract the noise."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a secret of another length."""
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"a run key has {KEY_BYTES} bytes, got {len(self.secret)}")

    @classmethod
    def fresh(cls) -> "RunKey":
        """Draw a key from the operating system."""
        return cls(os.urandom(KEY_BYTES))


@dataclass(frozen=True)
class Streams:
    """All secret streams of one run of one stage."""

    key: RunKey
    fingerprint: str
    stage: str

    def at(self, purpose: Purpose, step: int, name: str = "", draw: int = 0) -> "Stream":
        """Return the stream for one purpose at one step; equal arguments give equal bits."""
        label = json.dumps([self.fingerprint, self.stage, purpose, step, name, draw]).encode()
        return Stream(hmac.new(self.key.secret, label, hashlib.sha256).digest())

    def release_id(self) -> str:
        """Return a public name for this release that reveals nothing about the key."""
        return self.at("release", 0).raw(16).hex()


class Stream:
    """ChaCha20 key stream, read in order.

    Guarantee: under ChaCha20 and HMAC-SHA256 as pseudo-random functions, bits of distinct streams are
    indistinguishable from independent uniform ones by anybody without the run key.
    """

    def __init__(self, subkey: bytes) -> None:
        """Start at the first block; the subkey is used for this stream only, so a zero nonce is safe."""
        self._cipher = Cipher(ChaCha20(subkey, bytes(16)), mode=None).encryptor()

    def raw(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        return self._cipher.update(bytes(count))

    def integers(self, count: int) -> NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit integers."""
        return np.frombuffer(self.raw(8 * count), dtype="<u8").astype(np.uint64, copy=False)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` uniform numbers in (0, 1), on a grid of 2^-53, never 0."""
        drawn = (self.integers(count) >> np.uint64(11)).astype(np.float64)
        drawn += 0.5
        drawn *= 2.0**-53
        return drawn

    def gaussian(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` standard normal numbers in float64 (Box and Muller 1958).

        Drawn in blocks that fit a processor's cache. Floating-point Gaussian noise is not exactly Gaussian:
        the low bits of noisy sums can in principle tell neighbouring inputs apart (Mironov 2012), and no
        number lies further out than 8.7 standard deviations. The README names this among what is not
        protected against.
        """
        drawn = np.empty(count + count % 2)
        for start in range(0, len(drawn), _BLOCK):
            block = drawn[start : start + _BLOCK]
            half = len(block) // 2
            radius = self.uniform(half)
            np.log(radius, out=radius)
            radius *= -2.0
            np.sqrt(radius, out=radius)
            angle = self.uniform(half)
            angle *= 2.0 * np.pi
            np.multiply(radius, np.cos(angle), out=block[:half])
            np.multiply(radius, np.sin(angle), out=block[half:])
        return drawn[:count]

    def laplace(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` Laplace numbers of scale 1 in float64: an exponential with a random sign.

        What is said of ``gaussian`` in floating point holds here too (Mironov 2012); none lies further out
        than 37.5.
        """
        magnitude = -np.log(self.uniform(count))
        return np.where(self.integers(count) >> np.uint64(63), magnitude, -magnitude)
