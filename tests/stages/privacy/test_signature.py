"""A signed statement holds for its key and its bytes, and for nothing else."""

import copy
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from stages.core.canonical import canonical_json
from stages.privacy.signature import (
    DOMAIN,
    Commitment,
    LedgerHead,
    fingerprint,
    private_key,
    public_key,
    read_signed,
    sign,
    verify,
)

SIGNER = Ed25519PrivateKey.generate()
COMMITMENT = Commitment(
    number=2,
    previous="a" * 64,
    day="2026-11-22",
    statement="b" * 64,
    ledger=LedgerHead(population="patients", length=7, head="c" * 64),
    artifacts={"data/plan.json": "d" * 64, "dvc.lock": "e" * 64},
)
SIGNED = sign(COMMITMENT, SIGNER)


def accepts(document, key=None):
    return verify(read_signed(document, "signature.json"), (key or SIGNER).public_key())


def test_what_was_signed_verifies_after_a_journey_through_a_file() -> None:
    again = json.loads(canonical_json(SIGNED))
    assert accepts(again)
    assert read_signed(again, "signature.json").commitment == COMMITMENT


def test_another_key_does_not_verify_it() -> None:
    assert not accepts(SIGNED, Ed25519PrivateKey.generate())


def changes():
    """Yield the signed document with one thing changed, in every place."""
    for key, value in {
        "number": 3,
        "previous": "f" * 64,
        "day": "2026-11-23",
        "statement": "f" * 64,
        "ledger": {"population": "patients", "length": 6, "head": "c" * 64},
        "artifacts": {"data/plan.json": "d" * 64},
        "signature": SIGNED["signature"][:-1] + ("0" if SIGNED["signature"][-1] != "0" else "1"),
    }.items():
        changed = copy.deepcopy(SIGNED)
        changed[key] = value
        yield changed
    more = copy.deepcopy(SIGNED)
    more["artifacts"]["data/finetune/trace.json"] = "d" * 64
    yield more
    renamed = copy.deepcopy(SIGNED)
    renamed["ledger"]["population"] = "p\u0430tients"
    yield renamed


def test_every_changed_field_is_noticed() -> None:
    assert [accepts(changed) for changed in changes()] == [False] * 9


def test_a_stolen_fingerprint_gives_nothing() -> None:
    """A forger signs with a key of his own and writes the fingerprint of the honest one."""
    forged = sign(COMMITMENT, Ed25519PrivateKey.generate())
    assert not accepts({**forged, "key": fingerprint(SIGNER.public_key())})


def test_a_signature_of_the_same_bytes_for_another_purpose_does_not_count() -> None:
    message = canonical_json({key: value for key, value in SIGNED.items() if key != "signature"})
    for prefix, counts in ((b"", False), (b"another purpose\n", False), (DOMAIN, True)):
        assert accepts({**SIGNED, "signature": SIGNER.sign(prefix + message).hex()}) is counts


MALFORMED = {
    "is not a signed statement": [],
    "has version 2": {**SIGNED, "version": 2},
    "unknown keys": {**SIGNED, "note": ""},
    "lacks keys": {key: value for key, value in SIGNED.items() if key != "day"},
    "no plain path": {**SIGNED, "artifacts": {"../plan.json": "d" * 64}},
    "a digest that is not 64 hex digits": {**SIGNED, "artifacts": {"dvc.lock": "d" * 63 + "D"}},
    "no Ed25519 signature": {**SIGNED, "signature": SIGNED["signature"] + "00"},
    "has number 1 and previous": {**SIGNED, "number": 1},
    "a ledger of 0 entries": {**SIGNED, "ledger": {**SIGNED["ledger"], "length": 0}},
    "not YYYY-MM-DD": {**SIGNED, "day": "yesterday"},
    "must be of type int": {**SIGNED, "number": True},
}


@pytest.mark.parametrize(("words", "document"), MALFORMED.items(), ids=MALFORMED)
def test_a_document_of_another_form_is_refused_by_name(words: str, document: object) -> None:
    with pytest.raises(ValueError, match="^signature.json") as refusal:
        read_signed(document, "signature.json")
    assert words in str(refusal.value)


def test_keys_of_another_kind_are_refused() -> None:
    other = X25519PrivateKey.generate()
    plain = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = SIGNER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    subject = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert private_key(SIGNER.private_bytes(*plain), "k").private_bytes_raw() == SIGNER.private_bytes_raw()
    assert fingerprint(public_key(SIGNER.public_key().public_bytes(*subject), "k")) == SIGNED["key"]
    for pem in (b"", other.public_key().public_bytes(*subject), SIGNER.private_bytes(*plain)):
        with pytest.raises(ValueError, match="^k is not the PEM file of an Ed25519 public key"):
            public_key(pem, "k")
    for pem in (b"", other.private_bytes(*plain), SIGNER.public_key().public_bytes(*subject)):
        with pytest.raises(ValueError, match="^k is not the PEM file of an Ed25519 private key"):
            private_key(pem, "k")
    with pytest.raises(ValueError, match="protected by a password"):
        private_key(locked, "k")
