"""Read the graph of stages from ``dvc.yaml``, through DVC's own index.

Nothing here names a stage: what DVC would run, in the order DVC allows, is what the runner and the flow run.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from ruamel.yaml import YAML


@dataclass(frozen=True)
class Step:
    """A stage as the orchestrator sees it."""

    name: str
    summary: str
    upstream: tuple[str, ...]
    """Names of the stages that write what this one reads, sorted."""
    frozen: bool
    """Run by hand only; its outputs are committed."""
    retries: int
    """``meta.retries``: how often a crash is tried again."""
    releases: bool
    """``meta.releases``: forced by ``dualpriv repro --new-release`` where it is named."""
    approve: bool
    """``meta.approve: spend``: the flow asks a person before the stage spends."""


def read_steps(root: Path, targets: Sequence[str] = ()) -> tuple[Step, ...]:
    """Return ``targets`` and everything upstream, each after what it needs; no targets: the whole graph.

    Edge cases: an unknown target, or a ``dvc.yaml`` that DVC refuses, is a ValueError.
    """
    steps = _index(root)
    unknown = sorted(set(targets) - set(steps))
    if unknown:
        raise ValueError(f"dvc.yaml has no stage {unknown}; stages: {sorted(steps)}")
    wanted = _with_upstream(targets or steps, steps)
    order = TopologicalSorter({name: steps[name].upstream for name in sorted(wanted)}).static_order()
    return tuple(steps[name] for name in order)


def recorded(root: Path, stage: str) -> str:
    """Return what ``dvc.lock`` says of a stage, as text; nothing where it says nothing."""
    lock = root / "dvc.lock"
    if not lock.exists():
        return ""
    found = YAML(typ="safe", pure=True).load(lock)["stages"].get(stage)
    return "" if found is None else json.dumps(found, sort_keys=True, default=str)


def _index(root: Path) -> dict[str, Step]:
    # Imported here: `dualpriv --help` must not load DVC.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph  # an edge goes from a stage to one that it depends on
            return {
                stage.name: Step(
                    name=stage.name,
                    summary=stage.desc or "",
                    upstream=tuple(
                        sorted(up.name for up in graph.successors(stage) if isinstance(up, PipelineStage))
                    ),
                    frozen=stage.frozen,
                    retries=int((stage.meta or {}).get("retries", 0)),
                    releases=bool((stage.meta or {}).get("releases", False)),
                    approve=(stage.meta or {}).get("approve") == "spend",
                )
                for stage in graph.nodes
                if isinstance(stage, PipelineStage)
            }
    except DvcException as error:
        raise ValueError(f"dvc.yaml in {root}: {' '.join(str(error).split())}") from None


def _with_upstream(names: Iterable[str], steps: dict[str, Step]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += steps[name].upstream
    return found
