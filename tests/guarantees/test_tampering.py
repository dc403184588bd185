"""Forgers who have everything but the signing key, and may recompute every digest that needs none.

What is lied about, and how it comes out, stands in ``tests/forgeries_of_passes.py`` and
``tests/forgeries_of_ledgers.py``. Most lies contradict something
else in the evidence, and the audit names the file without any key ("audit"). A forger who rewrites everything
consistently is caught by the signature alone ("signature"): whoever checks no signature has no protection
from him, which the tests show too. Truncation is noticed by whoever holds a later signed statement
(``--latest``), and by whoever has a clone with the older commits (``--all-revs``).

Out of reach, with the reason (the Auditor's guide says it):

- *The operator signs, and never added the noise, or sampled otherwise than the trace says*: he holds both
  keys and writes the trace. Planted canaries, a test of the model itself, can show it.
- *The operator trains with other code or another ledger and shows nobody*: what never enters evidence, Git
  or the ledger is not there to be counted.
- *Everything rolled back to an older signed state, for an auditor who holds nothing later*: each state was
  true once. Hold the latest signed statement.
- *Commits that no ref reaches any more, or that were never pushed*: a clone does not have them; the ledger
  has their releases.
- *People declared public who are not, or too small a max_units, from the first day on*: a declaration is no
  measurement.
- *One person behind several units*: units are what the operator says they are.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from forgeries import FORGERIES
from forging import BEFORE, HONEST, Forgery, fitted
from honest_evidence import Run, files_of, name
from stored_evidence import Files, read, stored, written

from pipeline.audit import audit
from stages.core.canonical import canonical_json
from stages.core.entry import quiet_accountants
from stages.privacy.audit import audit_of, weight_findings
from stages.privacy.evidence import LEDGER, SIGNATURE, TRACE
from stages.privacy.findings import Finding, is_sound
from stages.privacy.signature import read_signed, sign
from stages.privacy.signature_findings import next_commitment, signature_verdict
from tests.pipeline.test_evidence_source import git

OPERATOR, FORGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PUBLIC = OPERATOR.public_key()
quiet_accountants()


def signed(files: Files, key: Ed25519PrivateKey = OPERATOR, previous: Files | None = None) -> Files:
    before = read_signed(json.loads(previous[SIGNATURE]), SIGNATURE) if previous else None
    return {**files, SIGNATURE: canonical_json(sign(next_commitment(read(files), before, "2026-11-22"), key))}


@pytest.fixture(scope="module")
def honest() -> Files:
    """Return what the operator committed and signed, as number 2."""
    return signed(files_of(HONEST), previous=signed(files_of(BEFORE)))


def noticed(files: Files, latest: Files | None = None) -> Iterator[Finding]:
    """Yield what an auditor with the public key finds."""
    evidence = read(files)
    yield from audit_of(evidence).findings
    yield from signature_verdict(evidence, PUBLIC, latest and latest[SIGNATURE]).findings


def told(findings, file: str, words: str) -> bool:
    return any(
        finding.severity == "error" and finding.file == file and words in finding.problem
        for finding in findings
    )


def test_honest_evidence_passes_with_its_signature(honest: Files) -> None:
    """The control of every test below: without a lie nothing is found."""
    assert list(noticed(honest)) == []
    assert signature_verdict(read(honest), PUBLIC, honest[SIGNATURE]).status == "verified"


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_caught_and_named(forgery: Forgery, honest: Files) -> None:
    forged = {**forgery.forge(dict(honest)), SIGNATURE: honest[SIGNATURE]}
    without_a_key = list(audit_of(read(forged)).findings)
    with_the_key = list(signature_verdict(read(forged), PUBLIC, None).findings)
    found = without_a_key if forgery.caught == "audit" else with_the_key
    assert told(found, forgery.file, forgery.words), [(one.file, one.problem) for one in found]
    assert is_sound(without_a_key) is (forgery.caught == "signature"), "only a signature catches these"
    assert not is_sound(with_the_key), "whoever has the public key notices every change"


def test_there_are_enough_of_them() -> None:
    assert len(FORGERIES) >= 25 and len({forgery.words for forgery in FORGERIES.values()}) >= 25


SIGNATURES = {
    "the forger's own signature": (
        lambda honest: signed(fitted(files_of(replace(HONEST, noise=1.6))), FORGER),
        SIGNATURE,
        "is by the key",
    ),
    "the forger's signature under the operator's name": (
        lambda honest: _renamed(signed(files_of(replace(HONEST, noise=1.6)), FORGER), honest),
        SIGNATURE,
        "does not verify",
    ),
    "the signature of another statement": (
        lambda honest: {**honest, SIGNATURE: signed(files_of(BEFORE))[SIGNATURE]},
        SIGNATURE,
        "is of another statement",
    ),
    "a signed list of fewer artifacts": (
        lambda honest: _without_artifact(honest, TRACE),
        SIGNATURE,
        "does not verify",
    ),
    "a path trick in a signed name": (
        lambda honest: _with_artifact(honest, "../../etc/passwd"),
        SIGNATURE,
        "names the artifact '../../etc/passwd', which is no plain path",
    ),
    "no signature any more": (
        lambda honest: {file: content for file, content in honest.items() if file != SIGNATURE},
        SIGNATURE,
        "is missing",
    ),
}


def _renamed(forged: Files, honest: Files) -> Files:
    document = json.loads(forged[SIGNATURE])
    document["key"] = json.loads(honest[SIGNATURE])["key"]
    return {**forged, SIGNATURE: canonical_json(document)}


def _without_artifact(honest: Files, file: str) -> Files:
    document = json.loads(honest[SIGNATURE])
    del document["artifacts"][file]
    return {**honest, SIGNATURE: canonical_json(document)}


def _with_artifact(honest: Files, file: str) -> Files:
    document = json.loads(honest[SIGNATURE])
    document["artifacts"][file] = "0" * 64
    return {**honest, SIGNATURE: canonical_json(document)}


@pytest.mark.parametrize(("forge", "file", "words"), SIGNATURES.values(), ids=SIGNATURES)
def test_a_forged_signature_is_caught_and_named(forge, file: str, words: str, honest: Files) -> None:
    found = list(noticed(forge(honest)))
    assert told(found, file, words), [(one.file, one.problem) for one in found]


def test_a_rollback_is_noticed_by_whoever_holds_the_latest_statement(honest: Files) -> None:
    before = signed(files_of(BEFORE))
    assert is_sound(list(noticed(before))), "out of reach: it was true once, and nothing later is held"
    found = list(noticed(before, latest=honest))
    assert told(found, SIGNATURE, "is an old one: it has number 1, the one that you hold 2")


def test_a_ledger_cut_short_is_noticed_by_whoever_holds_the_latest_statement(honest: Files) -> None:
    later = signed(files_of(Run(release="later", before=HONEST)), previous=honest)
    found = list(noticed(honest, latest=later))
    assert told(found, LEDGER, "the signed statement that you hold commits to")


def test_a_swapped_file_of_weights_is_named(honest: Files) -> None:
    trace = json.loads(honest[TRACE])
    present = {**trace["adapter"], "adapter_model.safetensors": name("swapped", 64)}
    assert list(weight_findings(trace, trace["adapter"])) == []
    (found,) = weight_findings(trace, present)
    assert (found.file, found.problem) == (
        "models/adapter/adapter_model.safetensors",
        "is not the file that the trace names",
    )


def committed(root: Path, *states: Files) -> Path:
    """Return a repository with one commit a state."""
    git(root, "init", "--quiet", "--initial-branch=main", ".")
    for state in states:
        written(root, state)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message", "evidence")
    return root


HISTORIES = {
    "a run that crashed taken out of the ledger": (
        "a run that crashed taken out, chained anew",
        LEDGER,
        "is another chain of population 'patients'",
    ),
    "all files rewritten with more noise": (
        "a consistent rewrite of all files with more noise",
        LEDGER,
        "is another chain of population 'patients'",
    ),
}


@pytest.mark.parametrize(("forgery", "file", "words"), HISTORIES.values(), ids=HISTORIES)
def test_a_consistent_rewrite_contradicts_the_commits_before_it(
    forgery: str, file: str, words: str, honest: Files, tmp_path: Path
) -> None:
    forged = FORGERIES[forgery].forge(files_of(HONEST))
    root = committed(tmp_path, files_of(HONEST), forged)
    assert audit(root)["verdict"] == "pass", "negative control: on its own it is consistent"
    verdict = audit(root, history=True)
    assert verdict["verdict"] == "fail"
    assert any(one["file"] == file and words in one["problem"] for one in verdict["findings"])


def test_a_ledger_cut_back_to_an_older_commit_is_noticed_in_the_history(tmp_path: Path) -> None:
    root = committed(tmp_path, files_of(BEFORE), files_of(HONEST), files_of(BEFORE))
    assert audit(root)["verdict"] == "pass", "negative control: on its own it is consistent"
    (found,) = [one for one in audit(root, history=True)["findings"] if one["severity"] == "error"]
    assert found["file"] == LEDGER and "was cut: commit" in found["problem"]
    assert "holds 8 more entries, and this builds on it" in found["problem"]


def test_honest_history_passes_and_counts_every_release(tmp_path: Path) -> None:
    root = committed(tmp_path, files_of(BEFORE), files_of(HONEST))
    verdict = audit(root, history=True)
    assert verdict["verdict"] == "pass" and not verdict["findings"]
    (population,) = verdict["all_revisions"]["populations"]
    assert len(population["releases"]) == 7, "two passes of three releases, and one that crashed"
    assert [release["ledger"] for release in population["releases"]].count("abandoned") == 1


def test_evidence_that_went_back_to_version_1_is_noticed_in_the_history(tmp_path: Path) -> None:
    root = committed(tmp_path, files_of(HONEST), stored("1.2"))
    found = [one["problem"] for one in audit(root, history=True)["findings"]]
    assert any("is of version 1, and commit" in problem for problem in found)
