"""Whether a checkout still holds what its model was trained with, by what ``dvc.lock`` records."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.params import PARAMS
from stages.ledger.release import LOCK

TRAINED = ("encode", "finetune")
"""The stages that made the model: one pruned the images, the other trained on them."""
SECTIONS = ("tokens", "model")
"""Sections of params.yaml by which a model sees images, and in which precision it computes."""


def require_as_trained(params: Mapping[str, Any], pruning: Path, backbone: Path) -> None:
    """Refuse parameters, a pruning or a backbone other than those that the model was trained with.

    Guarantee: ``SECTIONS`` are equal and the pruning is the same byte for byte. DVC recorded no other
    backbone since, and the one on the disk has the recorded size and number of files: weights that were
    changed in place behind DVC's back, at the same size, are not found, for reading all would take too long.
    """
    stages = _stages()
    last = {out["path"]: out for stage in stages.values() for out in stage.get("outs", [])}
    for name in TRAINED:
        if name not in stages:
            raise ValueError(f"{LOCK} records no run of stage {name}: run `dvc repro`")
        sections = stages[name].get("params", {}).get(PARAMS.name, {})
        for section in SECTIONS:
            if params.get(section) != sections.get(section):
                raise _other(f"section '{section}' of {PARAMS}", name)
        read = {dep["path"]: dep for dep in stages[name].get("deps", [])}
        for path in (pruning, backbone):
            then = read.get(path.as_posix(), {})
            now = last.get(path.as_posix(), then)
            if now.get("md5") != then.get("md5") or not _lies_there(path, then):
                raise _other(str(path), name)


def _other(what: str, stage: str) -> ValueError:
    return ValueError(
        f"{what} is not what stage {stage} was run with, so the model would not see images as in training: "
        "put it back, or train again with `dvc repro`"
    )


def _stages() -> dict[str, Any]:
    if not LOCK.is_file():
        raise ValueError(f"{LOCK} is missing, which says what the model was trained with: run `dvc repro`")
    try:
        found: dict[str, Any] = (YAML(typ="safe", pure=True).load(LOCK) or {}).get("stages", {})
    except YAMLError:
        raise ValueError(f"{LOCK} is not valid YAML: restore it from Git") from None
    return found


def _lies_there(path: Path, recorded: Mapping[str, Any]) -> bool:
    """Tell whether a file has its recorded digest, or a directory its recorded size and number of files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == recorded.get("md5")
    files = [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return (size, len(files)) == (recorded.get("size"), recorded.get("nfiles"))
