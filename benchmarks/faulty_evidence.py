"""Evidence of runs that did otherwise than planned, and what the audit command says of it.

It starts from the evidence of the checkout, and makes the digests in dvc.lock fit, as a faulty system would.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.audit import audit
from stages.core.canonical import canonical_json
from stages.privacy.evidence import LOCK, READ, TRACE

CHECKOUT = Path(__file__).resolve().parents[1]


def sound(seed: int) -> str | None:
    """Look at the evidence as it is."""
    return _said(lambda trace: None)


def steps_left_out(seed: int) -> str | None:
    """Train more steps than the trace tells."""
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
        before, contents[TRACE] = contents[TRACE], canonical_json(trace)
        contents[LOCK] = contents[LOCK].replace(_md5(before), _md5(contents[TRACE]))
        for name, content in contents.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        verdict = audit(root)
    errors = [one for one in verdict["findings"] if one["severity"] == "error"]
    return f"{errors[0]['file']} {errors[0]['problem']}" if errors else None


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content).hexdigest().encode()
