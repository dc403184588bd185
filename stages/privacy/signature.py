"""Sign a privacy statement: who vouches for it, for which ledger, and for which bytes of every artifact.

Ed25519 (RFC 8032) over the canonical JSON of a document that commits by SHA-256. What a signature adds to the
digests in the evidence: those anybody can recompute, this only the holder of the private key.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from stages.core.canonical import canonical_digest, canonical_json
from stages.core.schema import parse
from stages.privacy.artifact_names import is_digest, is_plain

VERSION = 1
DOMAIN = b"dualpriv signed privacy statement, version 1\n"
"""Goes before what is signed: a signature made for anything else never counts as one of a statement."""


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """How far the ledger chain of a population reached."""

    population: str
    length: int
    head: str
    """Digest of the last entry."""


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """What a signature vouches for."""

    number: int
    """1 for the first statement signed, one more for each that follows."""
    previous: str | None
    """SHA-256 of the signed document before, None for the first."""
    day: str
    """Day of signing, UTC, as the signer's clock had it."""
    statement: str
    """SHA-256 of the statement."""
    ledger: LedgerHead
    artifacts: Mapping[str, str]
    """SHA-256 of every evidence file, of dvc.lock and of each file of the adapter, by path."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A commitment, the key that signed it and the signature."""

    commitment: Commitment
    key: str
    signature: bytes
    digest: str
    """SHA-256 of the whole document, by which the next one names it."""


@dataclass(frozen=True, kw_only=True)
class _Document:
    version: int
    number: int
    previous: str | None
    day: str
    statement: str
    ledger: LedgerHead
    key: str
    signature: str


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key's 32 bytes, in hex: what people compare by telephone."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def sign(commitment: Commitment, private: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the signed document, as JSON.

    Guarantee: under the assumptions of RFC 8032, nobody without ``private`` makes another document that
    ``verify`` accepts.
    """
    document = {**_unsigned(commitment), "key": fingerprint(private.public_key())}
    return {**document, "signature": private.sign(_message(document)).hex()}


def read_signed(value: Any, where: str) -> Signed:
    """Return what a stored document says, not yet verified; a ValueError that starts with ``where``."""
    if not isinstance(value, dict) or not isinstance(value.get("artifacts"), dict):
        raise ValueError(f"{where} is not a signed statement")
    if value.get("version") != VERSION:
        raise ValueError(f"{where} has version {value.get('version')!a}; this dualpriv reads {VERSION}")
    rest = {key: item for key, item in value.items() if key != "artifacts"}
    try:
        document = parse(rest, _Document, where)
    except (KeyError, TypeError) as error:
        raise ValueError(str(error.args[0])) from None
    _require_form(document, value["artifacts"], where)
    commitment = Commitment(
        number=document.number,
        previous=document.previous,
        day=document.day,
        statement=document.statement,
        ledger=document.ledger,
        artifacts=value["artifacts"],
    )
    return Signed(
        commitment=commitment,
        key=document.key,
        signature=bytes.fromhex(document.signature),
        digest=canonical_digest(value),
    )


def verify(signed: Signed, public: Ed25519PublicKey) -> bool:
    """Tell whether the holder of ``public``'s private key signed this commitment.

    Guarantee: True means that every field is as it was signed; another key, a changed field or a signature
    of another kind of document gives False.
    """
    if signed.key != fingerprint(public):
        return False
    try:
        public.verify(signed.signature, _message({**_unsigned(signed.commitment), "key": signed.key}))
    except InvalidSignature:
        return False
    return True


def public_key(pem: bytes, name: str) -> Ed25519PublicKey:
    """Return the Ed25519 public key in ``pem``; ``name`` is for the refusal."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(
            f"{name} is not the PEM file of an Ed25519 public key: `dualpriv keys new` makes a pair"
        )
    return key


def private_key(pem: bytes, name: str) -> Ed25519PrivateKey:
    """Return the Ed25519 private key in ``pem``, which no password protects; ``name`` is for the refusal."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError(f"{name} is protected by a password: take it off with `openssl pkey`") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(
            f"{name} is not the PEM file of an Ed25519 private key: `dualpriv keys new` makes a pair"
        )
    return key


def _unsigned(commitment: Commitment) -> dict[str, Any]:
    return {"version": VERSION, **asdict(commitment), "artifacts": dict(commitment.artifacts)}


def _message(document: Mapping[str, Any]) -> bytes:
    return DOMAIN + canonical_json(dict(document))


def _require_form(document: _Document, artifacts: Mapping[str, Any], where: str) -> None:
    digests = [document.statement, document.ledger.head, document.key, *artifacts.values()]
    if document.previous is not None:
        digests.append(document.previous)
    if not all(is_digest(digest) for digest in digests):
        raise ValueError(f"{where} holds a digest that is not 64 hex digits")
    if not re.fullmatch("[0-9a-f]{128}", document.signature, re.ASCII):
        raise ValueError(f"{where} holds no Ed25519 signature of 128 hex digits")
    for name in artifacts:
        if not is_plain(name):
            raise ValueError(f"{where} names the artifact {name!a}, which is no plain path")
    if document.number < 1 or (document.number == 1) != (document.previous is None):
        raise ValueError(f"{where} has number {document.number} and previous {document.previous!a}")
    if document.ledger.length < 1:
        raise ValueError(f"{where} commits to a ledger of {document.ledger.length} entries")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", document.day, re.ASCII):
        raise ValueError(f"{where} has the day {document.day!a}, not YYYY-MM-DD")
