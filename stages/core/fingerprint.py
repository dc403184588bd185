"""Identify the resolved inputs of a stage: parameters, input bytes, code and library versions.

Secret streams, checkpoints and resumption hang on this digest; ``Speed`` is no part of it.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from stages.core.canonical import canonical_json
from stages.core.closure import import_closure
from stages.core.contract import Stage
from stages.core.files import sha256
from stages.core.provenance import versions


def fingerprint(stage: Stage, root: Path | None = None) -> str:
    """Return 32 hex digits that change with any parameter, input byte, code file or library of ``stage``.

    Libraries count because other versions may round differently, and noise must never serve two sums.
    """
    root = root or Path.cwd()
    inputs: dict[str, Any] = {"stage": stage.name()}
    for port in stage.ports():
        value = getattr(stage, port.name)
        if port.role == "section":
            inputs[port.name] = _plain(dataclasses.asdict(value))
        elif port.role in ("reads", "reads_from"):
            inputs[port.name] = sha256(root / value)
    inputs["code"] = code_digest(type(stage), root)
    inputs["versions"] = versions()
    return hashlib.sha256(canonical_json(inputs)).hexdigest()[:32]


def code_digest(stage: type[Stage], root: Path) -> str:
    """Return the SHA-256 of the names and contents of the files that ``stage`` runs."""
    files = import_closure(f"stages.{stage.name()}", root)
    digests = {path.as_posix(): sha256(root / path) for path in files}
    return hashlib.sha256(canonical_json(digests)).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
