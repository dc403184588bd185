"""What DVC has already recorded of a release, and whether it is merely missing on this machine."""

import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

NEW_RELEASE = "DUALPRIV_NEW_RELEASE"
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


def require_new_release(stage: str, path: Path, *, public: bool, lock: Path = LOCK) -> None:
    """Refuse to train when a release is recorded whose weights are merely missing here.

    Training again would spend the budget of a population that is not public a second time, for weights that
    exist. ``DUALPRIV_NEW_RELEASE=1`` (``dualpriv repro --new-release``) says that a second release is meant.
    """
    if public or os.environ.get(NEW_RELEASE) == "1":
        return
    digest = recorded_digest(stage, path, lock)
    if digest is None or _is_cached(digest):
        return
    raise ValueError(
        f"{lock} already records a release of {path} whose weights are missing on this machine: fetch "
        f"them with `dvc pull {stage}`, "
        "or spend the budget again with `dualpriv repro --new-release`"
    )


def _is_cached(digest: str) -> bool:
    from dvc.repo import Repo

    with Repo() as repo:
        return bool(repo.cache.local.exists(digest))
