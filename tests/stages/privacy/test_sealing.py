"""What was sealed opens with its private key as its release, and with nothing else."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from stages.privacy.sealing import private_key, public_key, seal, unseal
from stages.privacy.stream import RunKey

RELEASE = "0" * 32
OWNER = X25519PrivateKey.generate()
KEY = RunKey.fresh()


def public_pem(key: X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: X25519PrivateKey, lock: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock or NoEncryption())


def test_a_sealed_key_opens_and_shows_nothing_of_itself() -> None:
    archive = public_key(public_pem(OWNER.public_key()), "public.pem")
    sealed = seal(KEY, archive, RELEASE)
    assert unseal(sealed, private_key(private_pem(OWNER), "private.pem"), RELEASE) == KEY
    assert KEY.secret not in sealed
    assert seal(KEY, archive, RELEASE) != sealed, "equal keys are not seen to be equal"


def test_another_private_key_or_release_is_refused() -> None:
    sealed = seal(KEY, OWNER.public_key(), RELEASE)
    for private, release in ((X25519PrivateKey.generate(), RELEASE), (OWNER, "1" * 32)):
        with pytest.raises(ValueError, match=f"of release {release} does not open"):
            unseal(sealed, private, release)


def test_every_flipped_byte_and_every_cut_is_refused() -> None:
    sealed = seal(KEY, OWNER.public_key(), RELEASE)
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    for content in (*changed, b"", sealed[:-1], sealed + b"x", os.urandom(len(sealed))):
        with pytest.raises(ValueError, match="does not open"):
            unseal(content, OWNER, RELEASE)


ELLIPTIC = generate_private_key(SECP256R1())
NOT_PUBLIC = {
    "nothing": b"",
    "words": b"ssh-ed25519 AAAA",
    "a private key": private_pem(OWNER),
    "another curve": ELLIPTIC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "a point whose secret everybody knows": public_pem(X25519PublicKey.from_public_bytes(bytes(32))),
}


@pytest.mark.parametrize("pem", NOT_PUBLIC.values(), ids=NOT_PUBLIC)
def test_what_is_no_x25519_public_key_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match="^public.pem is not the PEM file of an X25519") as refusal:
        public_key(pem, "public.pem")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("pem", [b"", public_pem(OWNER.public_key())])
def test_what_is_no_x25519_private_key_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match="^private.pem is not the PEM file of an X25519 private key$"):
        private_key(pem, "private.pem")


def test_a_password_is_named() -> None:
    with pytest.raises(ValueError, match="protected by a password"):
        private_key(private_pem(OWNER, BestAvailableEncryption(b"word")), "private.pem")
