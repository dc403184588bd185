"""The command ``dualpriv audit``: recompute the privacy spent from stored evidence alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.all_revisions import all_revisions
from pipeline.evidence_files import evidence_at
from pipeline.evidence_source import Checkout, EvidenceSource, Repository, Revision
from pipeline.executed_code import checked_code
from pipeline.key_files import read_key_file
from pipeline.verdict import verdict_text
from stages.core.entry import quiet_accountants
from stages.core.files import sha256
from stages.privacy.audit import audit_of, weight_findings
from stages.privacy.canary_findings import read_stored
from stages.privacy.evidence import PLAN, STATEMENT, TRACE, Evidence
from stages.privacy.findings import Finding, in_brief, is_sound
from stages.privacy.signature import public_key
from stages.privacy.signature_findings import ADAPTER, signature_verdict


def audit_command(
    *,
    revision: str | None,
    history: bool,
    require_weights: bool,
    public: Path | None,
    latest: Path | None,
    as_json: bool,
) -> int:
    """Audit the checkout in the current directory, or a revision of it.

    Returns 0 when nothing contradicts the evidence and 1 when something does. Evidence that cannot be audited
    (a file is missing, the revision is unknown) is a ValueError, for which the command line exits 2.
    """
    quiet_accountants()
    if revision is not None and history:
        raise ValueError(
            "--rev audits one revision and --all-revs counts in all of them: give one of the two"
        )
    verdict = audit(
        Path.cwd(),
        revision=revision,
        require_weights=require_weights,
        public=None if public is None else public_key(read_key_file(public), str(public)),
        latest=None if latest is None else read_key_file(latest),
        history=history,
    )
    print(json.dumps(verdict, indent=2, sort_keys=True) if as_json else verdict_text(verdict))
    return 0 if verdict["verdict"] == "pass" else 1


def audit(
    root: Path,
    *,
    revision: str | None = None,
    require_weights: bool = False,
    public: Ed25519PublicKey | None = None,
    latest: bytes | None = None,
    history: bool = False,
) -> dict[str, Any]:
    """Return the verdict on the evidence in ``root``, or in a revision of it, as JSON.

    ``public`` is the key of whoever must have signed it, ``latest`` a signed statement that it has to extend;
    ``history`` adds up what all revisions show.
    """
    source = _source(root, revision)
    evidence = evidence_at(source)
    _require_whole(evidence, source)
    audited = audit_of(evidence)
    signature = signature_verdict(evidence, public, latest)
    weights, weights_found = "not checked", list[Finding]()
    if source.revision is None or require_weights:
        weights, weights_found = _weights(root / ADAPTER, evidence, require_weights)
    code, code_found = checked_code(root, evidence)
    everything, in_history = all_revisions(root, evidence) if history else (None, [])
    found = in_brief([*audited.findings, *signature.findings, *weights_found, *code_found, *in_history])
    statement, plan = (evidence.values.get(file, {}) for file in (STATEMENT, PLAN))
    signed = signature.signed
    return {
        "verdict": "pass" if is_sound(found) else "fail",
        "revision": source.revision,
        "source": source.described(),
        "evidence": {file: evidence.sha256(file) for file in sorted(evidence.contents)},
        "findings": [
            {
                "file": finding.file,
                "problem": finding.problem,
                "severity": finding.severity,
                "revision": finding.revision,
            }
            for finding in found
        ],
        "recomputed": [price.to_json() for price in audited.priced],
        "all_revisions": everything,
        "signature": {
            "status": signature.status,
            "key": signed.key if signed else None,
            "number": signed.commitment.number if signed else None,
            "day": signed.commitment.day if signed else None,
        },
        "weights": weights,
        "code": code,
        "target_epsilon": plan.get("target_epsilon"),
        "releases": _releases(statement),
        "canaries": _canaries(evidence),
        **{key: statement.get(key) for key in _STATED},
    }


_STATED = (
    "epsilon",
    "delta",
    "population",
    "population_is_public",
    "max_units",
    "unit",
    "relation",
    "accountant",
    "within_target",
    "composition",
    "population_total",
    "sentence",
)


def _releases(statement: Mapping[str, Any]) -> list[Any]:
    """Return the releases that a statement of any version lists."""
    listed = statement.get("charges", statement.get("releases"))
    charges = listed if isinstance(listed, list) else []
    return [charge for charge in charges if isinstance(charge, dict) and charge.get("release") is not None]


def _canaries(evidence: Evidence) -> dict[str, Any] | None:
    found = read_stored(evidence)
    return None if found is None else asdict(found)


def _source(root: Path, revision: str | None) -> EvidenceSource:
    if revision is None:
        return Checkout(root)
    repository = Repository(root)
    repository.require_undamaged()
    return Revision(repository, repository.commit(revision))


def _require_whole(evidence: Evidence, source: EvidenceSource) -> None:
    missing = evidence.missing()
    if missing:
        where = "this checkout" if source.revision is None else f"commit {source.revision[:12]}"
        raise ValueError(
            f"{', '.join(missing)} missing from {where}: it cannot be audited before `dvc repro` has run "
            "through and its evidence is committed"
        )


def _weights(adapter: Path, evidence: Evidence, required: bool) -> tuple[str, list[Finding]]:
    present = {file.name: sha256(file) for file in sorted(adapter.iterdir())} if adapter.is_dir() else {}
    if not present:
        missing = Finding(ADAPTER, "is not here to be checked: fetch it with `dvc pull finetune`")
        return "not checked", [missing] if required else []
    found = [*weight_findings(evidence.values.get(TRACE, {}), present)]
    return "differ" if found else "checked", found
