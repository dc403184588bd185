"""What DVC has already recorded of a release."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.new_release import is_new_release_meant

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


def require_new_release(
    stage: str, path: Path, *, public: bool, earlier: Sequence[str] = (), lock: Path = LOCK
) -> None:
    """Refuse to train when a release is recorded already; ``earlier`` names those that scratch remembers.

    Training again would spend the budget of a population that is not public a second time.
    ``DUALPRIV_NEW_RELEASE=1`` (``dualpriv repro --new-release``) says that a second release is meant.
    """
    if public or is_new_release_meant():
        return
    again = "or spend the budget of the population again with `dualpriv repro --new-release`"
    if recorded_digest(stage, path, lock) is not None:
        raise ValueError(
            f"{lock} already records a release of {path}: fetch its weights with `dvc pull {stage}`, restore "
            f"the parameters it was made with, {again}"
        )
    if earlier:
        raise ValueError(
            f"this population was already released on this machine, as {', '.join(earlier)}: use that one, "
            f"{again}"
        )
