"""The commands ``dualpriv keys``: make a signing key, sign a privacy statement, verify a signed one."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pipeline.evidence_files import evidence_at
from pipeline.evidence_source import Checkout
from pipeline.key_files import read_key_file, read_private_file, require_outside_git, write_new_file
from stages.core.entry import quiet_accountants
from stages.core.files import write_json
from stages.privacy.audit import audit_of
from stages.privacy.evidence import SIGNATURE, Evidence
from stages.privacy.signature import (
    Commitment,
    Signed,
    fingerprint,
    private_key,
    public_key,
    read_signed,
    sign,
    verify,
)
from stages.privacy.signature_findings import next_commitment, signature_verdict
from stages.privacy.strict_json import strict_json


def new_command(private: Path, public: Path) -> None:
    """Write a fresh Ed25519 key pair to two new files."""
    require_outside_git(private)
    if public.exists():
        raise ValueError(f"{public} exists already: name a new file")
    key = Ed25519PrivateKey.generate()
    write_new_file(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        write_new_file(public, pem, mode=0o644)
    except ValueError:
        private.unlink()
        raise
    print(f"{private} signs for you: keep it, and let nobody read it")
    print(f"{public} is what auditors need, fingerprint {fingerprint(key.public_key())}")


def sign_command(private: Path) -> None:
    """Sign the statement of the checkout in the current directory, once the audit finds nothing wrong."""
    quiet_accountants()
    key = private_key(read_private_file(private), str(private))
    evidence = evidence_at(Checkout(Path.cwd()))
    missing = evidence.missing()
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: there is nothing to sign before `dvc repro` has run")
    errors = [finding for finding in audit_of(evidence).findings if finding.severity == "error"]
    if errors:
        raise ValueError(
            f"not signed, for the audit contradicts {errors[0].file}: it {errors[0].problem}"
            + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")
        )
    previous = _previous(evidence, key)
    today = datetime.now(UTC).date().isoformat()
    commitment = next_commitment(evidence, previous, today)
    if previous is not None and _says_the_same(previous.commitment, commitment):
        print(f"{SIGNATURE} signs this evidence already, as number {previous.commitment.number}")
        return
    write_json(Path(SIGNATURE), sign(commitment, key))
    print(
        f"{SIGNATURE} is number {commitment.number}, by the key {fingerprint(key.public_key())}, over "
        f"{len(commitment.artifacts)} artifacts and {commitment.ledger.length} ledger entries of population "
        f"'{commitment.ledger.population}': commit it, and hand it to your auditor"
    )


def verify_command(public: Path) -> int:
    """Verify the signed statement in the current directory; returns 0 when it holds, else 1."""
    key = public_key(read_key_file(public), str(public))
    evidence = evidence_at(Checkout(Path.cwd()))
    verdict = signature_verdict(evidence, key, None)
    for finding in (*evidence.unreadable, *verdict.findings):
        print(f"ERROR {finding.file} {finding.problem}")
    if verdict.signed is None or verdict.status != "verified" or evidence.unreadable:
        return 1
    signed = verdict.signed.commitment
    print(
        f"{SIGNATURE} verifies: statement number {signed.number} of {signed.day}, by the key "
        f"{verdict.signed.key}, over {len(signed.artifacts)} artifacts and {signed.ledger.length} ledger "
        f"entries of population {signed.ledger.population!a}"
    )
    return 0


def _previous(evidence: Evidence, key: Ed25519PrivateKey) -> Signed | None:
    """Return the signed statement that is here; one by another key, or a broken one, is refused."""
    if SIGNATURE not in evidence.contents:
        return None
    signed = read_signed(strict_json(evidence.contents[SIGNATURE], SIGNATURE), SIGNATURE)
    if not verify(signed, key.public_key()):
        raise ValueError(
            f"{SIGNATURE} is not by this key: sign with the key {signed.key[:16]}..., or take the file away "
            "to begin anew as number 1"
        )
    return signed


def _says_the_same(before: Commitment, now: Commitment) -> bool:
    return (before.statement, before.ledger, before.artifacts) == (now.statement, now.ledger, now.artifacts)
