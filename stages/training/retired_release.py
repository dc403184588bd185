"""Put away the secrets of noised sums that are over: accounted, or overtaken by one that is."""

import dp_accounting

from stages.core.scratch import scratch_folder
from stages.ledger.ledger import Ledger
from stages.privacy.events import event_from_json
from stages.privacy.history import history_of
from stages.training.intents import read_begun, read_header
from stages.training.run_folder import RETIRED, RunFolder, is_free, retire_run


def retire_releases(stage: str, population: str, ledger: Ledger) -> None:
    """Destroy the run keys of all releases of ``stage`` on ``population`` that no living process holds.

    Asked once an output of the stage is accounted. Those that never ended are abandoned in the ledger: one
    that had begun is charged what it reserved, one that had not has read nothing and is charged nothing.

    Guarantee: no release ends up charged less than what it began.
    """
    states = {
        name: found.state
        for name, found in history_of(population, ledger.entries(population)).releases.items()
    }
    for path in sorted(scratch_folder(stage).iterdir()):
        folder = RunFolder(path)
        header = read_header(folder.intents) if folder.intents.exists() else None
        if path.name == RETIRED or header is None or header["charge"]["population"] != population:
            continue
        if not is_free(stage, path.name):
            continue
        release, begun = str(header["release"]), read_begun(folder.intents)
        if states.get(release) == "reserved":
            event = event_from_json(header["charge"]["event"]) if begun else dp_accounting.NoOpDpEvent()
            ledger.abandon(population, release, event, "stopped before its end, and overtaken by another")
        retire_run(stage, path.name, release, len(begun))
