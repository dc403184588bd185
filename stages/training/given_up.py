"""Give a run up: it can never go on, and what it had begun is known."""

import os
import re
from pathlib import Path

import dp_accounting

from stages.core.files import sync_directory
from stages.core.scratch import scratch_folder
from stages.privacy.plan import read_plan
from stages.training.intents import abandoned_path, read_begun, read_header
from stages.training.run_folder import open_run


def give_up(stage: str, release: str, population: str) -> dp_accounting.DpEvent | None:
    """Put the run of ``release`` where none goes on, and return the event of all the steps it began.

    None where this scratch folder does not know the release, whose worst case is then to be charged.

    Guarantee: on return no process can go on with the run. One that a living process holds is a ValueError,
    and so are damaged intents and those of another population.
    """
    intents = _intents_of(stage, release)
    if intents is None:
        return None
    folder = intents.parent
    if folder.parent != scratch_folder(stage) or not re.fullmatch(r"[0-9a-f]{32}", folder.name):
        return _begun(intents, population)  # set aside or abandoned before
    with open_run(stage, folder.name, None):
        event = _begun(intents, population)
        os.replace(folder, abandoned_path(folder))
        sync_directory(folder.parent)
    return event


def _intents_of(stage: str, release: str) -> Path | None:
    for path in sorted(scratch_folder(stage).rglob("intents.jsonl")):
        header = read_header(path)
        if header is not None and header["release"] == release:
            return path
    return None


def _begun(intents: Path, population: str) -> dp_accounting.DpEvent:
    header = read_header(intents)
    assert header is not None
    plan = read_plan(header["plan"], f"{intents}: its plan")
    if plan.population.name != population:
        raise ValueError(
            f"{intents} is of population '{plan.population.name}', and the ledger says otherwise"
        )
    steps = len(read_begun(intents))
    return plan.event(steps) if steps else dp_accounting.NoOpDpEvent()
