"""Evidence of runs that did otherwise than planned, and what the audit command says of it.

It starts from the evidence of the checkout; charges, statement and dvc.lock are made to fit the trace by the
functions that stage account uses. A run that takes more steps than it tells leaves no evidence: the
Auditor's guide says so, and the white-box auditor is for that.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.audit import audit
from stages.core.canonical import canonical_json
from stages.privacy.evidence import (
    CHARGES,
    LEDGER,
    LOCK,
    METRICS,
    PLAN,
    READ,
    STATEMENT,
    TRACE,
    read_evidence,
)
from stages.privacy.plan import read_plan
from stages.privacy.rebuilt_findings import rebuilt_charges
from stages.privacy.statement import statement_json

Files = dict[str, bytes]
CHECKOUT = Path(__file__).resolve().parents[1]


def sound(seed: int) -> str | None:
    """Look at the evidence as it is."""
    return _said(lambda trace: None)


def fewer_steps(seed: int) -> str | None:
    """Tell one step fewer than was planned."""
    return _said(lambda trace: trace["steps"].pop())


def another_sigma(seed: int) -> str | None:
    """Train with less noise than was planned, in a trace that tells."""
    return _said(lambda trace: trace["steps"][0].update(noise_multiplier=0.5))


def _said(edit: Callable[[dict[str, Any]], Any]) -> str | None:
    """Return the first error that the audit finds once a trace was edited."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        contents = {name: (CHECKOUT / name).read_bytes() for name in READ if (CHECKOUT / name).exists()}
        trace = json.loads(contents[TRACE])
        edit(trace)
        contents = _accounted(_replaced(contents, TRACE, trace))
        for name, content in contents.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        verdict = audit(root)
    errors = [one for one in verdict["findings"] if one["severity"] == "error"]
    return f"{errors[0]['file']} {errors[0]['problem']}" if errors else None


def _accounted(contents: Files) -> Files:
    """Return files with charges and statement as account writes them, or would if it did not refuse."""
    found = read_evidence(contents, None)
    plan = read_plan(found.values[PLAN], PLAN)
    charges = rebuilt_charges(plan, found.values[TRACE], found)
    contents = _replaced(contents, CHARGES, charges)
    found = read_evidence(contents, None)
    committed = {name: found.sha256(name) for name in (PLAN, TRACE, METRICS, CHARGES, LEDGER)}
    try:
        return _replaced(contents, STATEMENT, statement_json(plan, charges, found.values[LEDGER], committed))
    except ValueError:
        return contents


def _replaced(contents: Files, name: str, value: Any) -> Files:
    """Return files with one replaced, and its digest in dvc.lock."""
    content = canonical_json(value)
    lock = contents[LOCK].replace(_md5(contents[name]), _md5(content))
    return {**contents, name: content, LOCK: lock}


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content).hexdigest().encode()
