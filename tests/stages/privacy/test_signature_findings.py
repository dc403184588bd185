"""A signed statement is for these bytes and this chain, and for whoever holds a later one it is no other."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stored_evidence import Files, read, stored

from stages.core.canonical import canonical_json
from stages.privacy.chain import SplitBody, new_entry
from stages.privacy.evidence import LEDGER, LOCK, PLAN, SIGNATURE, STATEMENT, TRACE
from stages.privacy.signature import read_signed, sign
from stages.privacy.signature_findings import next_commitment, signature_verdict

SIGNER = Ed25519PrivateKey.generate()
PUBLIC = SIGNER.public_key()


def ledger(length: int, population: str = "patients", first: str = "rule") -> bytes:
    """Return the export of a chain of that many entries."""
    entries = []
    for number in range(length):
        body = SplitBody(rule=f"{first} {number}")
        entries.append(new_entry(population, entries, "2026-11-22", body))
    exported = {"version": 1, "population": population, "entries": [entry.to_json() for entry in entries]}
    return canonical_json(exported)


def evidence(chain: bytes) -> Files:
    return {**stored("1.2"), LEDGER: chain}


def signed(files: Files, key: Ed25519PrivateKey = SIGNER, previous: bytes | None = None) -> Files:
    """Return files with a signature over them."""
    before = None if previous is None else read_signed(json.loads(previous), SIGNATURE)
    commitment = next_commitment(read(files), before, "2026-11-22")
    return {**files, SIGNATURE: canonical_json(sign(commitment, key))}


ONE = signed(evidence(ledger(3)))
TWO = signed(evidence(ledger(5)), previous=ONE[SIGNATURE])
THREE = signed(evidence(ledger(6)), previous=TWO[SIGNATURE])


def judged(files: Files, public=PUBLIC, latest: bytes | None = None):
    return signature_verdict(read(files), public, latest)


def problems(verdict) -> list[tuple[str, str]]:
    return [(finding.file, finding.problem) for finding in verdict.findings]


def test_what_was_signed_is_verified_and_without_a_key_it_is_never_called_so() -> None:
    assert (judged(ONE).status, problems(judged(ONE))) == ("verified", [])
    assert (judged(ONE, public=None).status, problems(judged(ONE, public=None))) == ("not verified", [])


def test_no_signature_is_absent_and_a_finding_only_for_whoever_asks_for_one() -> None:
    bare = evidence(ledger(3))
    assert (judged(bare, public=None).status, problems(judged(bare, public=None))) == ("absent", [])
    assert problems(judged(bare)) == [(SIGNATURE, "is missing: nobody vouches for this evidence")]


@pytest.mark.parametrize("file", [PLAN, TRACE, STATEMENT, LOCK])
def test_every_file_is_the_one_that_was_signed(file: str) -> None:
    verdict = judged({**ONE, file: ONE[file] + b" "})
    assert verdict.status == "refused" and (file, "is not the file that was signed") in problems(verdict)


def test_a_file_added_or_taken_away_is_noticed() -> None:
    without = {file: content for file, content in ONE.items() if file != STATEMENT}
    assert (STATEMENT, "was signed and is not here") in problems(judged(without))
    earlier = {file: content for file, content in ONE.items() if file not in (SIGNATURE, PLAN)}
    partly = {**signed(earlier), PLAN: ONE[PLAN]}
    assert problems(judged(partly)) == [(PLAN, "is not among the files that were signed")]


def test_a_signature_by_another_key_is_named_as_one() -> None:
    verdict = judged(signed(evidence(ledger(3)), Ed25519PrivateKey.generate()))
    assert verdict.status == "refused"
    assert ["is by the key" in problem for _, problem in problems(verdict)] == [True]


def test_a_key_written_over_the_true_one_does_not_verify() -> None:
    document = json.loads(signed(evidence(ledger(3)), Ed25519PrivateKey.generate())[SIGNATURE])
    document["key"] = json.loads(ONE[SIGNATURE])["key"]
    verdict = judged({**ONE, SIGNATURE: canonical_json(document)})
    assert [problem for _, problem in problems(verdict)] == [
        "does not verify: the holder of the private key did not sign this"
    ]


def test_the_signature_of_another_state_of_the_evidence_is_named() -> None:
    verdict = judged({**TWO, SIGNATURE: ONE[SIGNATURE]})
    assert (LEDGER, "has 5 entries, of which 3 were signed") in problems(verdict)


def test_the_ledger_of_another_population_is_named() -> None:
    verdict = judged({**ONE, LEDGER: ledger(3, population="p\u0430tients")})
    assert (
        LEDGER,
        "is of population 'p\\u0430tients'; data/account/signature.json is of 'patients'",
    ) in problems(verdict)


LATER = {
    "the one that the auditor holds": (TWO, TWO, None),
    "a later one": (TWO, ONE, None),
    "one later still": (THREE, ONE, None),
    "an old one, replayed": (ONE, TWO, "is an old one: it has number 1, the one that you hold 2"),
    "a chain cut short": (
        ONE,
        TWO,
        "was cut: it has 3 entries; the signed statement that you hold commits to 5",
    ),
    "another of the same number": (
        signed(evidence(ledger(4))),
        ONE,
        "is another statement with the number 1 of the one that you hold",
    ),
    "one that follows another": (
        signed(evidence(ledger(5)), previous=signed(evidence(ledger(4)))[SIGNATURE]),
        ONE,
        "does not follow the one that you hold, of number 1",
    ),
    "a chain written anew": (
        signed(evidence(ledger(6, first="other")), previous=None),
        TWO,
        "was rewritten: entry 5 is not the one that the signed statement that you hold commits to",
    ),
    "none": ({**evidence(ledger(3))}, TWO, "is missing: nobody vouches for this evidence"),
}


@pytest.mark.parametrize(("present", "held", "words"), LATER.values(), ids=LATER)
def test_whoever_holds_a_signed_statement_notices(present: Files, held: Files, words: str | None) -> None:
    verdict = judged(present, latest=held[SIGNATURE])
    told = [problem for _, problem in problems(verdict)]
    assert told == [] if words is None else words in told
    assert (verdict.status == "verified") is (words is None)


def test_without_the_latest_statement_a_replayed_one_verifies() -> None:
    """The honest limit: truncation is noticed only by whoever holds something later."""
    assert judged(ONE).status == "verified"


def test_a_held_statement_by_another_key_is_refused() -> None:
    other = signed(evidence(ledger(3)), Ed25519PrivateKey.generate())[SIGNATURE]
    with pytest.raises(ValueError, match="^the signed statement that you hold does not verify"):
        judged(ONE, latest=other)


def test_a_ledger_that_shrank_is_not_signed_again() -> None:
    before = read_signed(json.loads(TWO[SIGNATURE]), SIGNATURE)
    with pytest.raises(ValueError, match="was cut: it has 3 entries.*before you sign"):
        next_commitment(read(evidence(ledger(3))), before, "2026-11-22")
    moved = next_commitment(read(evidence(ledger(1, population="others"))), before, "2026-11-22")
    assert (moved.number, moved.previous, moved.ledger.population) == (3, before.digest, "others")


@pytest.mark.parametrize(
    "chain", [None, b"{}\n", b'{\n  "entries": []\n}\n', b'{\n  "entries": [\n    1\n  ]\n}\n']
)
def test_without_a_ledger_there_is_nothing_to_sign(chain: bytes | None) -> None:
    files = stored("1.2") if chain is None else evidence(chain)
    with pytest.raises(ValueError, match="^data/account/ledger.json is missing or empty"):
        next_commitment(read(files), None, "2026-11-22")
    assert judged({**files, SIGNATURE: ONE[SIGNATURE]}).status == "refused"


@pytest.mark.parametrize("content", [b"", b"[]\n", b"{}\n", ONE[SIGNATURE] + b"\n"])
def test_a_broken_signature_is_a_finding_and_no_crash(content: bytes) -> None:
    verdict = judged({**ONE, SIGNATURE: content})
    assert verdict.status == "refused" and [finding.file for finding in verdict.findings] == [SIGNATURE]
