"""Runs whose steps are spent though no statement covers them yet, and those that one covers."""

from dataclasses import dataclass
from typing import Any

from stages.core.scratch import scratch_folder
from stages.privacy.plan import Plan
from stages.training.intents import read_begun, read_header
from stages.training.run_folder import RETIRED, RunFolder, is_free


@dataclass(frozen=True)
class Abandoned:
    """Another run whose steps no statement covers: its intents count as spent."""

    name: str
    release: str
    plan: dict[str, Any]
    steps: int


def abandoned_runs(
    stage: str, fingerprint: str, plan: Plan, recorded_trace: str | None = None
) -> list[Abandoned]:
    """Return the runs of ``stage`` on the population of ``plan`` that no statement covers yet, but this one.

    This one is among them where it ended with the trace that DVC has recorded: the next is another release.
    A run that a living process holds is not among them. One whose intents are damaged, or that counts by
    another unit or relation, is a ValueError: its charge cannot be added up.
    """
    found = []
    for path in sorted(scratch_folder(stage).iterdir()):
        folder = RunFolder(path)
        if path.name == RETIRED or not folder.intents.exists():
            continue
        is_over = recorded_trace is not None and folder.finished_as() == recorded_trace
        if path.name == fingerprint and not is_over:
            continue
        if not is_free(stage, path.name):
            continue
        header, begun = read_header(folder.intents), read_begun(folder.intents)
        if header is None or not begun or header["plan"]["population"]["name"] != plan.population.name:
            continue
        counted = (header["plan"]["population"]["unit"], header["plan"]["relation"])
        if counted != (plan.population.unit, plan.relation):
            raise ValueError(
                f"{path} is a run on population '{plan.population.name}' that counts per {counted[0]} under "
                f"{counted[1]}: give the population that unit and relation again"
            )
        found.append(Abandoned(path.name, str(header["release"]), header["plan"], len(begun)))
    return found


def retired_releases(stage: str, population: str) -> list[str]:
    """Return the releases on ``population`` whose intents were put away by ``retire_run``, sorted."""
    found = []
    for path in sorted((scratch_folder(stage) / RETIRED).glob("*")):
        header = read_header(RunFolder(path).intents) if RunFolder(path).intents.exists() else None
        if header is not None and header["plan"]["population"]["name"] == population:
            found.append(str(header["release"]))
    return found
