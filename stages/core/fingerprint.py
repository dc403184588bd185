"""Identify the resolved inputs of a stage: parameters, input bytes, code and library versions.

Secret streams, checkpoints and resumption hang on this digest; ``Speed`` is no part of it.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.canonical import canonical_digest
from stages.core.closure import import_closure
from stages.core.contract import Stage
from stages.core.files import sha256
from stages.core.provenance import versions


@dataclass(frozen=True)
class ResolvedInputs:
    """Everything a stage's result is a function of. Digests of private records are in it: keep it private."""

    values: dict[str, Any]
    """``params`` by section, ``files`` and ``code`` by path (SHA-256), ``versions`` by library."""

    @classmethod
    def of(cls, stage: Stage, root: Path | None = None) -> "ResolvedInputs":
        """Resolve what ``stage`` names, below ``root``."""
        root = root or Path.cwd()
        params: dict[str, Any] = {}
        files: dict[str, str] = {}
        for port in stage.ports():
            value = getattr(stage, port.name)
            if port.role == "section":
                params[port.key or port.name] = _plain(value)
            elif port.role in ("reads", "reads_from"):
                files[Path(value).as_posix()] = sha256(root / value)
        code = import_closure(f"stages.{stage.name()}", root)
        return cls(
            {
                "stage": stage.name(),
                "params": params,
                "files": files,
                "code": {path.as_posix(): sha256(root / path) for path in code},
                "versions": versions(),
            }
        )

    def fingerprint(self) -> str:
        """Return 32 hex digits that change with any parameter, input byte, code file or library.

        Libraries count because other versions may round differently, and noise must never serve two sums.
        """
        return canonical_digest(self.values)[:32]

    def code_digest(self) -> str:
        """Return the SHA-256 of the names and contents of the files that the stage runs."""
        return canonical_digest(self.values["code"])


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say what differs between the values of two resolved inputs, one phrase each.

    >>> changes({"params": {"optim": {"beta1": 0.9}}}, {"params": {"optim": {"beta1": 0.8}}})
    ['optim.beta1 was 0.9 and is 0.8']
    """
    old, new = _flat(before), _flat(after)
    changed = [key for key in sorted(old.keys() | new.keys(), key=str) if old.get(key) != new.get(key)]
    return [_phrase(key, old.get(key), new.get(key)) for key in changed]


def _phrase(key: tuple[str, ...], old: Any, new: Any) -> str:
    kind, name = key[0], ".".join(key[1:])
    if kind in ("files", "code"):
        return f"{name} " + ("is new" if old is None else "is gone" if new is None else "changed")
    return f"{name or kind} was {old} and is {new}"


def _flat(values: Any, key: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(values, dict):
        return {key: values}
    return {path: leaf for name, value in values.items() for path, leaf in _flat(value, (*key, name)).items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
