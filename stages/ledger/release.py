"""What DVC has already recorded of a release."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

LOCK = Path("dvc.lock")


def recorded_output(stage: str, path: Path, lock: Path = LOCK) -> dict[str, Any] | None:
    """Return what ``dvc.lock`` says of an output of ``stage``, or None."""
    if not lock.exists():
        return None
    content = YAML(typ="safe", pure=True).load(lock) or {}
    outs = content.get("stages", {}).get(stage, {}).get("outs", [])
    return next((dict(out) for out in outs if out["path"] == path.as_posix()), None)


def recorded_digest(stage: str, path: Path, lock: Path = LOCK) -> str | None:
    """Return the MD5 by which DVC recorded an output of ``stage``, or None."""
    out = recorded_output(stage, path, lock)
    return None if out is None else str(out.get("md5"))
