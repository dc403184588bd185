"""The pipeline: the tuple of stage classes, checked as a graph.

Naming a stage here is what puts it into ``dvc.yaml``; the order is for readers, dependencies decide.
"""

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from stages.core.contract import Stage

NAMES = (
    "ingest",
    "pretrain",
    "backbone",
    "profile",
    "calibrate",
    "encode",
    "plan",
    "finetune",
    "evaluate",
    "canaries",
    "account",
    "report",
)


def stage_classes(names: Iterable[str] = NAMES) -> tuple[type[Stage], ...]:
    """Import the stage modules and return their classes, one a module, checked."""
    stages = tuple(_stage_of(name) for name in names)
    check(stages)
    return stages


def check(stages: Sequence[type[Stage]]) -> None:
    """Refuse two writers of one output, inputs that nobody writes, and cycles."""
    writer: dict[Path, str] = {}
    for stage in stages:
        for port in stage.ports():
            if port.role == "writes":
                assert port.path is not None
                for other in writer:
                    if other == port.path or other in port.path.parents or port.path in other.parents:
                        raise ValueError(f"{stage.name()} and {writer[other]} both write {port.path}")
                writer[port.path] = stage.name()
    upstream = {stage.name(): _upstream(stage, writer) for stage in stages}
    done: set[str] = set()
    while len(done) < len(upstream):
        ready = {name for name, needs in upstream.items() if name not in done and needs <= done}
        if not ready:
            raise ValueError(f"stages {sorted(set(upstream) - done)} form a cycle")
        done |= ready


def _upstream(stage: type[Stage], writer: dict[Path, str]) -> set[str]:
    needs: set[str] = set()
    for port in stage.ports():
        if port.role == "reads":
            assert port.path is not None
            found = [name for path, name in writer.items() if path == port.path or path in port.path.parents]
            if not found:
                raise ValueError(f"{stage.name()} reads {port.path}, which no stage writes")
            needs |= set(found)
        if port.role == "reads_from" and port.path is not None:
            needs |= {name for path, name in writer.items() if path.parent == port.path}
    return needs


def _stage_of(name: str) -> type[Stage]:
    module = importlib.import_module(f"stages.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Stage) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(
            f"stages/{name}.py must define one stage class, found {[item.__name__ for item in found]}"
        )
    return found[0]
