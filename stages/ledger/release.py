"""What DVC has already recorded of a release."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.new_release import is_new_release_meant
from stages.privacy.population import Population

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


def recorded_population(lock: Path = LOCK) -> str | None:
    """Return the population that the recorded plan was made for; None where ``dvc.lock`` does not say."""
    content = YAML(typ="safe", pure=True).load(lock) or {}
    params = content.get("stages", {}).get("plan", {}).get("params", {}).get("params.yaml", {})
    name = params.get("population", {}).get("name")
    return None if name is None else str(name)


def require_new_release(
    stage: str, path: Path, population: Population, *, earlier: Sequence[str] = (), lock: Path = LOCK
) -> None:
    """Refuse to train when a release of ``population`` is recorded; ``earlier`` are those scratch remembers.

    Training again would spend the budget of a population that is not public a second time.
    ``DUALPRIV_NEW_RELEASE=1`` (``dualpriv repro --new-release``) says that a second release is meant.
    """
    if population.public or is_new_release_meant():
        return
    again = "or spend the budget of the population again with `dualpriv repro --new-release`"
    recorded = recorded_digest(stage, path, lock) is not None
    if recorded and recorded_population(lock) in (None, population.name):
        raise ValueError(
            f"{lock} already records a release of {path}: fetch its weights with `dvc pull {stage}`, restore "
            f"the parameters it was made with, {again}"
        )
    if earlier:
        raise ValueError(
            f"population '{population.name}' was already released on this machine, as {', '.join(earlier)}: "
            f"use that, {again}"
        )
