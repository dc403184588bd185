"""Runs that will not go on: the ledger charges what they began, and their keys are destroyed."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dp_accounting

from stages.core.files import sync_directory
from stages.core.scratch import scratch_folder
from stages.ledger.ledger import Ledger
from stages.privacy.accountants import Relation
from stages.privacy.events import event_from_json
from stages.privacy.history import Release
from stages.privacy.population import Population
from stages.privacy.reserving import Reservation
from stages.privacy.version_two import plan_of_a_run
from stages.training.intents import abandoned_path, read_begun, read_header
from stages.training.run_folder import RETIRED, RunFolder, is_free, open_run, retire_run


@dataclass(frozen=True)
class Begun:
    """What the intents of a run say: which release of whom it is, and how much of it was begun."""

    intents: Path
    header: dict[str, Any]
    steps: int

    @property
    def name(self) -> str:
        """Return the name of the run's folder."""
        return self.intents.parent.name

    @property
    def release(self) -> str:
        """Return the release."""
        return str(self.header["release"])

    @property
    def population(self) -> str:
        """Return the population whose records it reads."""
        named = self.header["plan"]["population"]["name"] if "plan" in self.header else None
        return str(named or self.header["charge"]["population"])

    def event(self) -> dp_accounting.DpEvent:
        """Return the event of all the steps it began; nothing where it began none."""
        if not self.steps:
            return dp_accounting.NoOpDpEvent()
        if "plan" in self.header:
            return plan_of_a_run(self.header["plan"], f"{self.intents}: its plan").event(self.steps)
        return event_from_json(self.header["charge"]["event"])

    def reservation(self, stage: str) -> Reservation:
        """Return a reservation of what it began, for a ledger that does not know it."""
        charge = self.header.get("charge", {"split": "train", "sampler": "poisson"})
        about = {"split": charge["split"], "sampler": charge["sampler"]}
        return Reservation(release=self.release, stage=stage, event=self.event(), **about)


def other_runs(stage: str, fingerprint: str, population: str) -> list[Begun]:
    """Return the runs of ``stage`` on ``population`` that are not put away, but the one of ``fingerprint``.

    A run that a living process holds is not among them. One whose intents are damaged is a ValueError: what
    it spent is unknown.
    """
    found = []
    for path in sorted(scratch_folder(stage).iterdir()):
        if path.name in (RETIRED, fingerprint) or not path.is_dir() or not is_free(stage, path.name):
            continue
        run = _begun(RunFolder(path).intents)
        if run is not None and run.population == population:
            found.append(run)
    return found


def abandon_runs(
    ledger: Ledger, stage: str, runs: Sequence[Begun], population: Population, relation: Relation
) -> None:
    """Have the ledger charge every step that ``runs`` on ``population`` began, and put the runs away.

    Guarantee: a run is put away only when the ledger has settled or abandoned its release. One that began
    something and that the ledger does not know, because it is another ledger now, is reserved first.
    """
    for run in runs:
        known = released(ledger, population.name, run.release)
        is_open = known is not None and known.state == "reserved"
        if known is None and run.steps:
            ledger.reserve(population, relation, run.reservation(stage))
            is_open = True
        if is_open:
            event = give_up(stage, run.release, population.name)
            assert event is not None
            ledger.abandon(population.name, run.release, event, "stopped, and another release was begun")
        retire_run(stage, run.release)


def give_up(stage: str, release: str, population: str) -> dp_accounting.DpEvent | None:
    """Put the run of ``release`` where none goes on, and return the event of all the steps it began.

    None where this scratch folder does not know the release, whose worst case is then to be charged.

    Guarantee: on return no process can go on with the run. One that a living process holds is a ValueError,
    and so are damaged intents and those of another population.
    """
    copies = [
        run for path in scratch_folder(stage).rglob("intents.jsonl") if (run := _begun(path)) is not None
    ]
    known = [run for run in copies if run.release == release]
    if not known:
        return None
    run = max(known, key=lambda copy: copy.steps)  # a folder that somebody copied may know less
    intents, folder = run.intents, run.intents.parent
    if folder.parent != scratch_folder(stage) or not re.fullmatch(r"[0-9a-f]{32}", folder.name):
        return _event(run, population)  # set aside or abandoned before
    with open_run(stage, folder.name, None):
        run = _begun(intents)  # as it is now that nobody else can write
        assert run is not None
        event = _event(run, population)
        os.replace(folder, abandoned_path(folder))
        sync_directory(folder.parent)
    return event


def released(ledger: Ledger, population: str, release: str) -> Release | None:
    """Return what the ledger knows of a release, or None."""
    return ledger.history(population).releases.get(release)


def was_abandoned(ledger: Ledger, population: str) -> Callable[[str], bool]:
    """Return a function that tells whether a release of ``population`` was given up in the ledger."""

    def tell(release: str) -> bool:
        found = released(ledger, population, release)
        return found is not None and found.state == "abandoned"

    return tell


def _begun(intents: Path) -> Begun | None:
    header = read_header(intents) if intents.exists() else None
    return None if header is None else Begun(intents, header, len(read_begun(intents)))


def _event(run: Begun, population: str) -> dp_accounting.DpEvent:
    if run.population != population:
        raise ValueError(f"{run.intents} is of population '{run.population}', and the ledger says otherwise")
    return run.event()
