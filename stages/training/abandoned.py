"""Runs that were stopped and will not go on: the ledger charges what they began, and their keys go."""

from dataclasses import dataclass
from typing import Any

from stages.core.scratch import scratch_folder
from stages.ledger.ledger import Ledger
from stages.privacy.history import history_of
from stages.privacy.plan import read_plan
from stages.privacy.population import Population
from stages.training.intents import read_begun, read_header
from stages.training.run_folder import RETIRED, RunFolder, is_free, retire_run
from stages.training.settling import reservation


@dataclass(frozen=True)
class OtherRun:
    """Another run on the same population whose folder still lies beside the present one's."""

    name: str
    release: str
    plan: dict[str, Any]
    steps: int


def other_runs(stage: str, fingerprint: str, population: str) -> list[OtherRun]:
    """Return the runs of ``stage`` on ``population`` that are not put away, but the one of ``fingerprint``.

    A run that a living process holds is not among them. One whose intents are damaged is a ValueError: what
    it spent is unknown.
    """
    found = []
    for path in sorted(scratch_folder(stage).iterdir()):
        folder = RunFolder(path)
        if (
            path.name in (RETIRED, fingerprint)
            or not folder.intents.exists()
            or not is_free(stage, path.name)
        ):
            continue
        header, begun = read_header(folder.intents), read_begun(folder.intents)
        if header is not None and header["plan"]["population"]["name"] == population:
            found.append(OtherRun(path.name, str(header["release"]), header["plan"], len(begun)))
    return found


def abandon_others(ledger: Ledger, stage: str, fingerprint: str, population: Population) -> None:
    """Have the ledger charge every step that other runs on ``population`` began, and put the runs away.

    Guarantee: a run is put away only when the ledger has settled or abandoned its release; one that the
    ledger does not know, because it is another ledger now, is reserved first.
    """
    for run in other_runs(stage, fingerprint, population.name):
        plan = read_plan(run.plan, f"the plan of run {run.name}")
        known = history_of(population.name, ledger.entries(population.name)).releases.get(run.release)
        if known is None and run.steps:
            ledger.reserve(population, plan.relation, reservation(plan, stage, run.release))
        if (known is None and run.steps) or (known is not None and known.state == "reserved"):
            ledger.abandon(population.name, run.release, plan.event(run.steps), f"began {run.steps} steps")
        retire_run(stage, run.release)
