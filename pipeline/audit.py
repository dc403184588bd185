"""The command ``dualpriv audit``: recompute the privacy spent from stored evidence alone."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.entry import quiet_accountants
from stages.core.files import read_json, sha256
from stages.privacy.audit import EVIDENCE, PLAN, STATEMENT, TRACE, Finding, findings, weight_findings

ADAPTER = Path("models/adapter")


def audit_command(*, require_weights: bool, as_json: bool) -> int:
    """Audit the checkout in the current directory; returns 0 when the evidence holds, else 1."""
    quiet_accountants()
    verdict = audit(Path.cwd(), require_weights=require_weights)
    if as_json:
        print(json.dumps(verdict, indent=2, sort_keys=True))
    else:
        _print(verdict)
    return 0 if verdict["verdict"] == "pass" else 1


def audit(root: Path, *, require_weights: bool = False) -> dict[str, Any]:
    """Return the verdict on the evidence in ``root``, or a ValueError that names what is missing of it."""
    contents = {file: read_json(root / file) for file in EVIDENCE}
    digests = {file: _digests(root / file) for file in EVIDENCE}
    lock_file = root / "dvc.lock"
    if not lock_file.exists():
        raise ValueError(f"{lock_file} is missing: audit a checkout whose pipeline has run")
    found = findings(contents, digests, YAML(typ="safe", pure=True).load(lock_file))
    weights, weights_found = _weights(root / ADAPTER, contents[TRACE], require_weights)
    found += weights_found
    statement = contents[STATEMENT] if isinstance(contents[STATEMENT], dict) else {}
    plan = contents[PLAN] if isinstance(contents[PLAN], dict) else {}
    return {
        "verdict": "fail" if found else "pass",
        "findings": [{"file": finding.file, "problem": finding.problem} for finding in found],
        "epsilon": statement.get("epsilon"),
        "delta": statement.get("delta"),
        "population": statement.get("population"),
        "unit": statement.get("unit"),
        "relation": statement.get("relation"),
        "accountant": statement.get("accountant"),
        "within_target": statement.get("within_target"),
        "target_epsilon": plan.get("target_epsilon"),
        "weights": weights,
        "charges": statement.get("charges", []),
        "population_total": statement.get("population_total"),
        "sentence": statement.get("sentence"),
    }


def _weights(adapter: Path, trace: Any, required: bool) -> tuple[str, list[Finding]]:
    present = {file.name: sha256(file) for file in sorted(adapter.iterdir())} if adapter.is_dir() else {}
    if not present:
        missing = Finding(ADAPTER.as_posix(), "is not here to be checked: fetch it with `dvc pull finetune`")
        return "not checked", [missing] if required else []
    if not isinstance(trace, dict) or not isinstance(trace.get("adapter"), dict):
        return "not checked", [Finding(TRACE, "names no adapter files")]
    found = weight_findings(trace, present)
    return "differ" if found else "checked", found


def _digests(path: Path) -> dict[str, str]:
    return {"sha256": sha256(path), "md5": hashlib.md5(path.read_bytes()).hexdigest()}


def _print(verdict: dict[str, Any]) -> None:
    for finding in verdict["findings"]:
        print(f"FAIL  {finding['file']}: {finding['problem']}", file=sys.stderr)
    if verdict["verdict"] == "pass":
        print(verdict["sentence"])
    print(f"weights: {verdict['weights']}")
    print(f"verdict: {verdict['verdict']}")
