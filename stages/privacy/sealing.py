"""Seal a run key to somebody's public key: nobody but the holder of the private key can open it again.

HPKE in base mode (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305. Whoever opens a run key can
subtract the noise of its run, so the private key is as secret as the records.
"""

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from stages.privacy.stream import RunKey

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def public_key(pem: bytes, name: str) -> X25519PublicKey:
    """Return the X25519 public key in ``pem``, to which a key can be sealed; ``name`` is for the refusal."""
    try:
        key = load_pem_public_key(pem)
        if isinstance(key, X25519PublicKey):
            SUITE.encrypt(b"", key)  # a point of low order would share its secret with everybody
            return key
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise ValueError(
        f"{name} is not the PEM file of an X25519 public key: make a pair with "
        "`openssl genpkey -algorithm X25519 -out private.pem` and "
        "`openssl pkey -in private.pem -pubout -out public.pem`"
    )


def private_key(pem: bytes, name: str) -> X25519PrivateKey:
    """Return the X25519 private key in ``pem``, which no password protects; ``name`` is for the refusal."""
    try:
        key = load_pem_private_key(pem, password=None)
        if isinstance(key, X25519PrivateKey):
            return key
    except TypeError:
        raise ValueError(f"{name} is protected by a password: take it off with `openssl pkey`") from None
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise ValueError(f"{name} is not the PEM file of an X25519 private key")


def seal(key: RunKey, archive: X25519PublicKey, release: str) -> bytes:
    """Return ``key`` encrypted to ``archive`` as the key of ``release``.

    Guarantee: under the assumptions of RFC 9180, section 9.1, what is returned tells nothing about the key to
    anybody without the private key, and opens as the key of no other release.

    Edge cases: sealing twice gives different bytes; whoever has the public key can seal too, so what opens is
    not proven to be the run's key.
    """
    return SUITE.encrypt(key.secret, archive, info=_info(release))


def unseal(sealed: bytes, private: X25519PrivateKey, release: str) -> RunKey:
    """Return the run key of ``release``; another private key or release or a changed byte is refused."""
    try:
        return RunKey(SUITE.decrypt(sealed, private, info=_info(release)))
    except InvalidTag:
        raise ValueError(
            f"the sealed run key of release {release} does not open: this is not the private key that it was "
            "sealed for, or the sealed file was changed"
        ) from None


def _info(release: str) -> bytes:
    return f"dualpriv run key of release {release}".encode()
