"""A stage is a frozen dataclass; its fields are its contract.

A field is one of: a section of ``params.yaml`` (a dataclass type; the field's name is the section unless
``section`` says otherwise) or one value of a section, an input path (``reads``, ``reads_from``) or an output
path (``writes``).
``dvc.yaml`` is rendered from these fields (pipeline/dvcfile.py) and the stage runs on them; no path or
parameter name is written twice.
"""

import dataclasses
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from stages.core.params import PARAMS, read_params, read_section
from stages.core.spending import Spending

Role = Literal["section", "reads", "reads_from", "writes"]


def section(key: str) -> Any:
    """Declare a field that holds the section of ``params.yaml`` at dotted ``key``, or one value of it."""
    return field(metadata={"role": "section", "key": key})


def reads(path: str) -> Any:
    """Declare an input file or directory."""
    return field(default=Path(path), metadata={"role": "reads"})


def reads_from(key: str, *, below: str | None = None) -> Any:
    """Declare an input whose path ``params.yaml`` owns at dotted ``key``.

    With ``below`` the value names an entry of that folder, which other stages write.
    """
    return field(metadata={"role": "reads_from", "key": key, "below": Path(below) if below else None})


def writes(path: str, *, evidence: bool = False, plot: dict[str, str] | None = None) -> Any:
    """Declare an output file or directory.

    ``evidence`` outputs are small files that Git keeps and DVC does not cache. ``plot`` is a DVC plot
    definition.
    """
    return field(default=Path(path), metadata={"role": "writes", "evidence": evidence, "plot": plot})


@dataclass(frozen=True)
class Port:
    """One field of a stage, as ``dvc.yaml`` and the runner need it."""

    name: str
    role: Role
    key: str | None
    path: Path | None
    """The path, or the folder below which ``params.yaml`` names one; None where it names the whole path."""
    evidence: bool
    plot: dict[str, str] | None
    schema: Any


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of the pipeline: ``python -m stages.NAME`` where NAME is the module's last word."""

    frozen: ClassVar[bool] = False
    """Run by hand and never by ``dvc repro``; its outputs are committed."""
    parallel: ClassVar[bool] = False
    """Several processes may share its work: ``speed.processes``, or torchrun."""
    meta: ClassVar[dict[str, Any]] = {}
    """Hints for the orchestrator (retries, gpus, approve); not part of what DVC records."""

    def run(self) -> None:
        """Read the inputs, call the library, write the outputs."""
        raise AssertionError("a stage defines run")

    def spending(self) -> Spending | None:
        """Return what ``run`` would reserve, for a person to approve; None where it is nothing new."""
        return None

    @classmethod
    def name(cls) -> str:
        """Return the stage's name: the last word of its module, also under ``python -m``."""
        spec = sys.modules["__main__"].__spec__ if cls.__module__ == "__main__" else None
        return (spec.name if spec else cls.__module__).rpartition(".")[2]

    @classmethod
    def ports(cls) -> tuple[Port, ...]:
        """Return the contract, field by field."""
        hints = typing.get_type_hints(cls)
        return tuple(_port(item, hints[item.name]) for item in dataclasses.fields(cls))

    @classmethod
    def load(cls, params: Path = PARAMS) -> typing.Self:
        """Build the stage from ``params.yaml`` in the current directory."""
        values = read_params(params)
        given: dict[str, Any] = {}
        for port in cls.ports():
            if port.role == "section":
                assert port.key is not None
                given[port.name] = read_section(values, port.key, port.schema, params)
            elif port.role == "reads_from":
                assert port.key is not None
                value = lookup(values, port.key, params)
                if not isinstance(value, str) or not value:
                    raise TypeError(f"{params}: key '{port.key}' must be a path, got {value!r}")
                given[port.name] = (port.path or Path()) / value
        return cls(**given)


def lookup(values: dict[str, Any], key: str, file: Path = PARAMS) -> Any:
    """Return the value at dotted ``key``."""
    value: Any = values
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise KeyError(f"{file}: key '{key}' is missing")
        value = value[part]
    return value


def _port(item: "dataclasses.Field[Any]", hint: Any) -> Port:
    role = item.metadata.get("role", "section")
    return Port(
        name=item.name,
        role=role,
        key=item.metadata.get("key", item.name if role == "section" else None),
        path=item.default if role in ("reads", "writes") else item.metadata.get("below"),  # type: ignore[arg-type]
        evidence=item.metadata.get("evidence", False),
        plot=item.metadata.get("plot"),
        schema=hint,
    )
