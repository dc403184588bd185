"""The runs of a comparison as DVC experiments: found again by name, each in a copy of the workspace."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.compare.grid import Arm, changed_keys
from pipeline.presets import leaves
from pipeline.runner import Runner
from stages.core.canonical import canonical_json
from stages.core.files import sha256

TARGETS = ("evaluate", "account")
"""What a comparison reads of a run; everything upstream of these runs, or is taken from DVC's cache."""
METRICS, STATEMENT = "data/evaluate/metrics.json", "data/account/statement.json"
_IDENTITY = {"NAME": "dualpriv compare", "EMAIL": "compare@localhost"}
_DECIDES = ("stages", "params.yaml", "dvc.yaml", "dvc.lock")


@dataclass(frozen=True)
class Experiment:
    """A run, and the name by which DVC keeps it."""

    arm: Arm
    name: str
    changes: Mapping[str, str]


def experiments_of(base: Mapping[str, Any], every: list[Arm], code: str) -> list[Experiment]:
    """Return runs with names made of all that decides them."""
    keys = changed_keys(base, every)
    found = []
    for arm in every:
        values = {".".join(parts): value for parts, value in leaves(arm.params)}
        changes = {key: spelled(values[key]) for key in keys}
        decides = canonical_json({"changes": changes, "base": dict(base), "code": code})
        digest = hashlib.sha256(decides).hexdigest()[:16]
        found.append(Experiment(arm, f"compare-{digest}", changes))
    return found


def spelled(value: Any) -> str:
    """Return a value as DVC's ``--set-param`` reads it.

    >>> spelled([[12, 4]]), spelled(None), spelled(True), spelled(1e-05), spelled("sgd")
    ('[[12,4]]', 'null', 'true', '1.0e-05', "'sgd'")
    """
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelled, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return json.dumps(value)


def code_key(root: Path, records: Iterable[Path]) -> str:
    """Return what changes with code and with records: what is committed of the code and what is not."""
    committed = [_git(root, "rev-parse", f"HEAD:{name}") for name in _DECIDES]
    changed = _git(root, "diff", "HEAD", "--", *_DECIDES)
    files = (file for path in records for file in ([path] if path.is_file() else sorted(path.rglob("*"))))
    read = [f"{file} {sha256(file)}" for file in files if file.is_file()]
    return hashlib.sha256("\n".join([*committed, changed, *read]).encode()).hexdigest()


def known(root: Path) -> dict[str, str]:
    """Return the commits of all experiments of comparisons, by name."""
    listed = _git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    refs = (line.split() for line in listed)
    return {ref.rpartition("/")[2]: commit for ref, commit in refs if "/compare-" in ref}


def result(root: Path, commit: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metrics and statement of an experiment."""
    metrics, statement = (json.loads(_git(root, "show", f"{commit}:{name}")) for name in (METRICS, STATEMENT))
    return metrics, statement


def run_missing(
    runner: Runner,
    missing: Sequence[Experiment],
    copied: Sequence[str],
    jobs: int,
    done: Callable[[Experiment], None],
) -> None:
    """Run experiments, ``jobs`` at once, and tell of each that has ended; the first that fails stops all."""
    with ThreadPoolExecutor(jobs) as pool:
        running = {
            pool.submit(runner.experiment, each.name, each.changes, TARGETS, _unsaid, copied): each
            for each in missing
        }
        try:
            for future in as_completed(running):
                future.result()
                done(running[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            raise


def _unsaid(line: str) -> None:
    """Lines of many runs at once help nobody; the last ones are told where a run fails."""


def lend_identity(root: Path) -> None:
    """Let experiments be committed where Git knows nobody: for this process and what it starts."""
    for key, value in _IDENTITY.items():
        given = subprocess.run(
            ["git", "config", f"user.{key.lower()}"], cwd=root, capture_output=True, text=True
        )
        if not given.stdout.strip():
            for role in ("AUTHOR", "COMMITTER"):
                os.environ.setdefault(f"GIT_{role}_{key}", value)


def _git(root: Path, *arguments: str) -> str:
    found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if found.returncode:
        said = found.stderr.strip().splitlines()
        reason = said[-1] if said else "failed"
        raise ValueError(f"git {arguments[0]}: {reason}: compare in a clone of the repository")
    return found.stdout.strip()
