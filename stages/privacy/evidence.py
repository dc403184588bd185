"""The evidence of one pass through the pipeline: which files it is, and their values once they are read."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.privacy.artifact_names import is_plain
from stages.privacy.findings import Finding, shown
from stages.privacy.strict_json import strict_json

PLAN = "data/plan.json"
TRACE = "data/finetune/trace.json"
CHARGES = "data/account/charges.json"
STATEMENT = "data/account/statement.json"
LEDGER = "data/account/ledger.json"
METRICS = "data/evaluate/metrics.json"
CANARIES = "data/canaries/canaries.json"
PROFILE = "data/profile/profile.json"
PRUNING = "data/calibrate/pruning.json"
CALIBRATION = "data/calibrate/calibration.json"
"""What the choice of pruning was called before version 3."""
CHOICES = (PROFILE, PRUNING, CALIBRATION)
"""What is chosen before training, by every name that it ever had."""
EXPORTS = "data/ledger"
"""Where `dualpriv ledger export` writes the chains of populations, each to a file."""
LOCK = "dvc.lock"
SIGNATURE = "data/account/signature.json"
"""Beside the evidence and no part of it: made by `dualpriv keys sign`, not by a stage."""
STAGE_OF = {
    PROFILE: "profile",
    PRUNING: "calibrate",
    CALIBRATION: "calibrate",
    PLAN: "plan",
    TRACE: "finetune",
    METRICS: "evaluate",
    CANARIES: "canaries",
    CHARGES: "account",
    LEDGER: "account",
    STATEMENT: "account",
}
"""Each file that evidence of any version has, and the stage that writes it, in the order of the stages."""
FILES = tuple(STAGE_OF)
ATTACHED = {
    "data/profile/importance.csv": "profile",
    "data/profile/layers.png": "profile",
    "data/calibrate/frontier.csv": "calibrate",
    "data/calibrate/fidelity.csv": "calibrate",
    "data/calibrate/patches.png": "calibrate",
    "data/report/report.html": "report",
}
"""What people look at: drawn from the evidence, recorded and signed with it, and never read as a value."""
READ = (*FILES, *ATTACHED, LOCK, SIGNATURE)
_VERSIONED = (PLAN, TRACE, CHARGES, STATEMENT)
_SINCE = {LEDGER: 2, METRICS: 2, PRUNING: 3}
"""Files that an earlier version could do without."""
_UNTIL = {CALIBRATION: 2}
"""Files that no later version has."""
_OPTIONAL = (CANARIES,)
"""Evidence beside the accounting, which is whole without it."""
VERSIONS = (1, 2, 3)


@dataclass(frozen=True)
class Lock:
    """What ``dvc.lock`` records; nothing is taken for granted of its form."""

    value: Any

    def stage(self, name: str) -> Mapping[str, Any]:
        """Return the record of a stage, empty where there is none."""
        return _mapping(_mapping(_mapping(self.value).get("stages")).get(name))

    def stages(self) -> list[str]:
        """Return the names of the stages."""
        return [str(name) for name in _mapping(_mapping(self.value).get("stages"))]

    def digests(self, stage: str, kind: str) -> dict[str, str]:
        """Return the MD5 of each of a stage's ``deps`` or ``outs`` by path."""
        listed = self.stage(stage).get(kind)
        items = [_mapping(item) for item in (listed if isinstance(listed, list) else [])]
        return {str(item.get("path")): str(item.get("md5")) for item in items if _is_named(item)}

    def parameter(self, stage: str, section: str, key: str) -> Any:
        """Return the value of a parameter that a stage ran with, None where it is not recorded."""
        sections = _mapping(_mapping(self.stage(stage).get("params")).get("params.yaml"))
        return _mapping(sections.get(section)).get(key)


@dataclass(frozen=True)
class Evidence:
    """Files by name, and the JSON values of those that could be read."""

    contents: Mapping[str, bytes]
    values: Mapping[str, Any]
    lock: Lock
    unreadable: tuple[Finding, ...]

    @property
    def version(self) -> int:
        """Return the version of the plan, which all files share."""
        return int(self.values[PLAN]["version"])

    @property
    def choices(self) -> tuple[str, ...]:
        """Return what was chosen before training, by the names of this version."""
        return tuple(file for file in CHOICES if _has(self.version, file))

    def odd(self) -> list[str]:
        """Return the choices here that only evidence of another version has."""
        return [file for file in CHOICES if file in self.contents and file not in self.choices]

    def missing(self) -> list[str]:
        """Return the files that an audit of this evidence needs and that are not there at all."""
        versions = [self.values[file].get("version") for file in _VERSIONED if file in self.values]
        latest = max((version for version in VERSIONS if version in versions), default=VERSIONS[0])
        needed = [file for file in (*FILES, LOCK) if _has(latest, file) and file not in _OPTIONAL]
        told = {finding.file for finding in self.unreadable}
        return [file for file in needed if file not in self.contents and file not in told]

    def ledgers(self) -> dict[str, Mapping[str, Any]]:
        """Return every ledger chain by its file: that of the pass, and those that were exported."""
        return {file: value for file, value in self.values.items() if file == LEDGER or is_export(file)}

    def sha256(self, file: str) -> str:
        """Return the SHA-256 of a file."""
        return hashlib.sha256(self.contents[file]).hexdigest()

    def md5(self, file: str) -> str:
        """Return the MD5 by which DVC records a file."""
        return hashlib.md5(self.contents[file], usedforsecurity=False).hexdigest()


def is_export(file: str) -> bool:
    """Tell whether a file is an exported ledger."""
    return file.startswith(f"{EXPORTS}/") and file.endswith(".json") and is_plain(file)


def read_evidence(contents: Mapping[str, bytes], lock: Any, unread: Iterable[Finding] = ()) -> Evidence:
    """Return the evidence in ``contents``; ``lock`` is the value of ``dvc.lock``.

    What cannot be read has no value and is told by ``unreadable``, beside what the caller could not read.
    """
    values, unreadable = {}, [*unread]
    for file in (*FILES, *sorted(filter(is_export, contents))):
        if file not in contents:
            continue
        try:
            value = strict_json(contents[file], file)
        except ValueError as error:
            unreadable.append(Finding(file, str(error).removeprefix(f"{file} ")))
            continue
        if isinstance(value, dict):
            values[file] = value
        else:
            unreadable.append(Finding(file, f"is {shown(value)}, not a mapping"))
    return Evidence(contents, values, Lock(lock), (*unreadable, *_versions(values)))


def _has(version: int, file: str) -> bool:
    return _SINCE.get(file, 1) <= version <= _UNTIL.get(file, VERSIONS[-1])


def _versions(values: Mapping[str, Any]) -> Iterator[Finding]:
    known = {shown(values[file].get("version")) for file in _VERSIONED if file in values}
    for file in _VERSIONED:
        if file not in values:
            continue
        version = values[file].get("version")
        if type(version) is not int or version not in VERSIONS:
            yield Finding(file, f"has version {shown(version)}; this dualpriv reads {list(VERSIONS)}")
        elif len(known) > 1:
            yield Finding(
                file, f"has version {version} among evidence of versions {', '.join(sorted(known))}"
            )


def _is_named(item: Mapping[str, Any]) -> bool:
    return all(isinstance(item.get(key), str) for key in ("path", "md5"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
