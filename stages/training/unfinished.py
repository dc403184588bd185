"""Refuse to begin a run beside one that was stopped on other inputs, and say what has changed."""

from collections.abc import Sequence

from stages.core.files import read_json
from stages.core.fingerprint import ResolvedInputs, changes
from stages.core.new_release import is_new_release_meant
from stages.ledger.ledger import Ledger
from stages.privacy.accountants import Relation
from stages.privacy.population import Population
from stages.training.abandoned import Begun, abandon_runs, other_runs
from stages.training.intents import ABANDONED
from stages.training.run_folder import is_begun, run_folder

_SHOWN = 5


def require_no_unfinished(stage: str, others: Sequence[Begun], inputs: ResolvedInputs) -> None:
    """Refuse when one of the other runs on a population was stopped before its end.

    Its noise may not serve these inputs, so it cannot go on; beginning anew abandons it and charges every
    step that it began.
    """
    if is_new_release_meant():
        return
    for run in others:
        folder = run_folder(stage, run.name)
        was_abandoned = ABANDONED in run.name
        if not run.steps or was_abandoned or folder.finished_as() is not None or not folder.inputs.exists():
            continue
        found = changes(read_json(folder.inputs), inputs.values)
        said = "; ".join(found[:_SHOWN]) + (f"; and {len(found) - _SHOWN} more" if found[_SHOWN:] else "")
        raise ValueError(
            f"a run that was stopped after it began {run.steps} steps cannot go on, for its inputs have "
            f"changed: {said}. Restore them to go on with it, or abandon it, which charges its {run.steps} "
            "steps, by `dualpriv repro --new-release`"
        )


def make_way(
    ledger: Ledger,
    stage: str,
    inputs: ResolvedInputs,
    recorded: str | None,
    population: Population,
    relation: Relation,
) -> None:
    """Let a release of ``stage`` begin or go on: other runs on ``population`` are charged and put away.

    One that was stopped before its end is in the way (``require_no_unfinished``), unless this one goes on.
    """
    ledger.require_registered(population.name)
    if is_begun(stage, inputs.fingerprint(), recorded):
        return
    others = other_runs(stage, inputs.fingerprint(), population.name)
    require_no_unfinished(stage, others, inputs)
    abandon_runs(ledger, stage, others, population, relation)
