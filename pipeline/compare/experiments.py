"""The runs of a comparison as DVC experiments: found again by name, each in a private clone."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.compare.clones import Clone
from pipeline.compare.grid import Arm, Grid, changed_keys, params_of
from pipeline.git import git
from pipeline.presets import leaves
from stages.core.canonical import canonical_digest, canonical_json
from stages.core.files import sha256
from stages.core.params import read_section
from stages.privacy.evidence import METRICS, STATEMENT
from stages.records.data import Data
from stages.vlm.source import Model

TARGETS = ("evaluate", "account")
"""What a comparison reads of a run; everything upstream of these runs, or is taken from DVC's cache."""
_DECIDES_NOTHING = ("ledger", "report", "run_key", "speed")
"""Sections of params.yaml that change no result."""
_ENCODES = ("calibrate", "tokens", "model", "data")
"""Sections that decide what features are."""
_CALIBRATES = (*_ENCODES, "trainable", "estimator")
"""Sections that decide what a run does before it is planned."""


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
        found.append(Experiment(arm, named("compare", arm.params, code), changes))
    return found


def unlike_first(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return them with one of every token rule first: runs that begin together then encode other features.

    What the first of a rule has encoded, DVC's run cache has for all later ones.
    """
    rules: dict[bytes, list[Experiment]] = {}
    for each in experiments:
        rules.setdefault(_of(each, _ENCODES), []).append(each)
    return [group[0] for group in rules.values()] + [each for group in rules.values() for each in group[1:]]


class Waiting:
    """Experiments that have not begun; a clone goes on with those that need what its last one prepared.

    DVC's run cache keeps no stage that writes evidence, so such a stage is up to date in a clone, or runs.
    """

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        """Wait for clones."""
        self._left = [(_of(each, _CALIBRATES), each) for each in unlike_first(experiments)]
        self._prepared: dict[int, bytes] = {}

    def next(self, clone: int) -> Experiment | None:
        """Return the next one for a clone, told by its place; None where none is left."""
        if not self._left:
            return None
        own, all_of_them = self._prepared.get(clone), set(self._prepared.values())
        found = min(self._left, key=lambda waits: (waits[0] != own, waits[0] in all_of_them))
        self._left.remove(found)
        self._prepared[clone], experiment = found
        return experiment


def _of(experiment: Experiment, sections: Sequence[str]) -> bytes:
    return canonical_json({key: experiment.arm.params[key] for key in sections})


def named(of: str, params: Mapping[str, Any], code: str) -> str:
    """Return the name of an experiment: ``of`` what it is a part, and a digest of all that decides it."""
    digest = canonical_digest({"params": deciding(params), "code": code})
    return f"{of}-{digest[:16]}"


def deciding(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters without those that change no result."""
    return {key: value for key, value in params.items() if key not in _DECIDES_NOTHING}


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


def code_key(root: Path, records: Iterable[Path], commit: str, digest: Callable[[Path], str] = sha256) -> str:
    """Return what changes with the code of the stages, as a commit has it, and with the records."""
    code = [git(root, "rev-parse", f"{commit}:{name}") for name in ("stages", "dvc.yaml")]
    read = [f"{path} {digest(root / path)}" for path in sorted(records)]
    return hashlib.sha256("\n".join([*code, *read]).encode()).hexdigest()


def inputs_of(params: Mapping[str, Any]) -> set[Path]:
    """Return what is there of what a run reads beside what stages write: records, a model's directory."""
    data, model = read_section(dict(params), "data", Data), read_section(dict(params), "model", Model)
    paths = {data.private.path, data.public.path} | ({model.path} if model.hub is None else set())
    return {path for path in paths if path.exists()}


def require_records(params: Mapping[str, Any]) -> None:
    """Refuse records that are not here and that DVC could not bring, before the first run begins."""
    data = read_section(dict(params), "data", Data)
    for path in (data.private.path, data.public.path):
        if not path.exists() and not Path(f"{path}.dvc").is_file():
            raise ValueError(f"{path} does not exist: put the data there, or name another path")


def inputs_of_all(base: Mapping[str, Any], grid: Grid) -> list[Path]:
    """Return what the runs of a comparison and its stand-in read beside what stages write."""
    found = {path for path in (grid.stand_in.path,) if path.exists()}
    return sorted(found.union(*(inputs_of(params_of(base, grid, method.params)) for method in grid.methods)))


def known(root: Path, of: str = "compare") -> dict[str, str]:
    """Return the commits of all experiments that are ``named`` so, by name."""
    listed = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    refs = (line.split() for line in listed)
    return {ref.rpartition("/")[2]: commit for ref, commit in refs if f"/{of}-" in ref}


def result(root: Path, name: str, commit: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metrics and statement of an experiment; one that lacks them is a ValueError."""
    try:
        found = [json.loads(git(root, "show", f"{commit}:{file}")) for file in (METRICS, STATEMENT)]
    except ValueError:
        reason = f"experiment {name} has no results: `dvc exp remove {name}`, and compare again"
        raise ValueError(reason) from None
    return found[0], found[1]


def run_missing(clones: Sequence[Clone], missing: Sequence[Experiment], done: Callable[[], None]) -> None:
    """Run experiments, one in each clone at a time, and call ``done`` when one has ended.

    The first that fails stops all; what the others have begun a later call goes on with, or abandons where
    it stands in the way.
    """
    waiting, gate = Waiting(missing), threading.Lock()

    def work(place: int, clone: Clone) -> None:
        while True:
            with gate:
                each = waiting.next(place)
            if each is None:
                return
            clone.run(each.name, each.changes, TARGETS)
            with gate:
                done()

    with ThreadPoolExecutor(max(1, len(clones))) as pool:
        futures = [pool.submit(work, *each) for each in enumerate(clones)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            for clone in clones:
                clone.runner.stop()
            raise
