"""Compare a signed statement with the evidence beside it, with a key, and with one that the auditor holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from stages.privacy.evidence import ATTACHED, FILES, LEDGER, LOCK, SIGNATURE, STATEMENT, TRACE, Evidence
from stages.privacy.findings import Finding, shown
from stages.privacy.signature import Commitment, LedgerHead, Signed, fingerprint, read_signed, verify
from stages.privacy.strict_json import strict_json

Status = Literal["absent", "not verified", "verified", "refused"]
ADAPTER = "models/adapter"
LATEST = "the signed statement that you hold"


@dataclass(frozen=True)
class SignatureVerdict:
    """What is known of who vouches for the evidence."""

    status: Status
    """``verified`` only where a public key was given and everything signed is here, as it was signed."""
    signed: Signed | None
    findings: tuple[Finding, ...]


def signature_verdict(
    evidence: Evidence, public: Ed25519PublicKey | None, latest: bytes | None
) -> SignatureVerdict:
    """Judge the signed statement beside ``evidence``.

    ``public`` is the key that the auditor trusts, which he has from elsewhere; ``latest`` a signed statement
    that he holds, which this one must be or build on.

    Guarantee: ``verified`` means that the holder of the private key of ``public`` signed exactly these bytes
    of every evidence file and of dvc.lock, these digests of the adapter and this ledger chain.
    """
    if SIGNATURE not in evidence.contents:
        return SignatureVerdict("absent", None, tuple(_absent(evidence, public, latest)))
    try:
        signed = read_signed(strict_json(evidence.contents[SIGNATURE], SIGNATURE), SIGNATURE)
    except ValueError as error:
        broken = Finding(SIGNATURE, str(error).removeprefix(f"{SIGNATURE} "))
        return SignatureVerdict("refused", None, (broken,))
    found = [*_contents(signed.commitment, evidence)]
    if public is not None:
        found += _key(signed, public)
    if latest is not None:
        found += _latest(latest, signed, evidence, public)
    status: Status = "refused" if found else "not verified" if public is None else "verified"
    return SignatureVerdict(status, signed, tuple(found))


def artifacts_of(evidence: Evidence) -> dict[str, str]:
    """Return the SHA-256 of everything that a signature commits to beside the ledger's head."""
    files = [file for file in (*FILES, *ATTACHED, LOCK) if file in evidence.contents]
    adapter = evidence.values.get(TRACE, {}).get("adapter")
    named = adapter.items() if isinstance(adapter, dict) else ()
    return {file: evidence.sha256(file) for file in files} | {
        f"{ADAPTER}/{name}": str(digest) for name, digest in named
    }


def chain_of(evidence: Evidence, file: str = LEDGER) -> list[str] | None:
    """Return the digests of a ledger's entries in order, None where it cannot be read."""
    entries = evidence.values.get(file, {}).get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    return [str(entry.get("digest")) for entry in entries]


def extension_findings(
    signed: Commitment, chain: list[str], population: Any, whose: str
) -> Iterator[Finding]:
    """Yield how ``chain`` fails to hold everything that was signed; it may have grown since."""
    if population != signed.ledger.population:
        yield Finding(
            LEDGER,
            f"is of population {shown(population)}; {whose} is of {shown(signed.ledger.population)}",
        )
    elif len(chain) < signed.ledger.length:
        yield Finding(
            LEDGER, f"was cut: it has {len(chain)} entries; {whose} commits to {signed.ledger.length}"
        )
    elif chain[signed.ledger.length - 1] != signed.ledger.head:
        yield Finding(
            LEDGER, f"was rewritten: entry {signed.ledger.length} is not the one that {whose} commits to"
        )


def _absent(evidence: Evidence, public: Ed25519PublicKey | None, latest: bytes | None) -> Iterator[Finding]:
    if public is not None or latest is not None:
        yield Finding(SIGNATURE, "is missing: nobody vouches for this evidence")
    if latest is not None:
        yield from _latest(latest, None, evidence, public)


def _contents(signed: Commitment, evidence: Evidence) -> Iterator[Finding]:
    expected = artifacts_of(evidence)
    for file in sorted(signed.artifacts.keys() | expected.keys()):
        if file not in expected:
            yield Finding(file, "was signed and is not here")
        elif file not in signed.artifacts:
            yield Finding(file, "is not among the files that were signed")
        elif signed.artifacts[file] != expected[file]:
            yield Finding(file, "is not the file that was signed")
    if STATEMENT in evidence.contents and signed.statement != evidence.sha256(STATEMENT):
        yield Finding(SIGNATURE, "is of another statement")
    chain = chain_of(evidence)
    if chain is None:
        yield Finding(LEDGER, "was signed and is not here to be compared")
        return
    ledger = evidence.values[LEDGER]
    yield from extension_findings(signed, chain, ledger.get("population"), SIGNATURE)
    if len(chain) > signed.ledger.length:
        yield Finding(LEDGER, f"has {len(chain)} entries, of which {signed.ledger.length} were signed")


def _key(signed: Signed, public: Ed25519PublicKey) -> Iterator[Finding]:
    if signed.key != fingerprint(public):
        yield Finding(
            SIGNATURE,
            f"is by the key {signed.key[:16]}..., not by the one you gave, {fingerprint(public)[:16]}...",
        )
    elif not verify(signed, public):
        yield Finding(SIGNATURE, "does not verify: the holder of the private key did not sign this")


def _latest(
    content: bytes, present: Signed | None, evidence: Evidence, public: Ed25519PublicKey | None
) -> Iterator[Finding]:
    held = read_signed(strict_json(content, LATEST), LATEST)
    if public is not None and not verify(held, public):
        raise ValueError(f"{LATEST} does not verify with the public key that you gave")
    chain = chain_of(evidence)
    if chain is not None:
        population = evidence.values[LEDGER].get("population")
        yield from extension_findings(held.commitment, chain, population, LATEST)
    if present is None:
        return
    older, newer = held.commitment, present.commitment
    if newer.number < older.number:
        yield Finding(
            SIGNATURE, f"is an old one: it has number {newer.number}, the one that you hold {older.number}"
        )
    elif newer.number == older.number and present.digest != held.digest:
        yield Finding(
            SIGNATURE, f"is another statement with the number {newer.number} of the one that you hold"
        )
    elif newer.number == older.number + 1 and newer.previous != held.digest:
        yield Finding(SIGNATURE, f"does not follow the one that you hold, of number {older.number}")


def next_commitment(evidence: Evidence, previous: Signed | None, day: str) -> Commitment:
    """Return what a new signature commits to, after ``previous``; a ledger that was cut is a ValueError."""
    chain = chain_of(evidence)
    if not chain:
        raise ValueError(
            f"{LEDGER} is missing or empty, and a signature commits to the ledger: run `dvc repro`"
        )
    population = str(evidence.values[LEDGER].get("population"))
    if previous is not None and previous.commitment.ledger.population == population:
        for finding in extension_findings(previous.commitment, chain, population, SIGNATURE):
            raise ValueError(f"{finding.file} {finding.problem}: export it again before you sign")
    return Commitment(
        number=1 if previous is None else previous.commitment.number + 1,
        previous=None if previous is None else previous.digest,
        day=day,
        statement=evidence.sha256(STATEMENT),
        ledger=LedgerHead(population=population, length=len(chain), head=chain[-1]),
        artifacts=artifacts_of(evidence),
    )
