"""Refuse to begin a run beside one that was stopped on other inputs, and say what has changed."""

from stages.core.files import read_json
from stages.core.fingerprint import ResolvedInputs, changes
from stages.core.new_release import is_new_release_meant
from stages.training.abandoned import other_runs
from stages.training.intents import ABANDONED
from stages.training.run_folder import run_folder

_SHOWN = 5


def require_no_unfinished(stage: str, population: str, inputs: ResolvedInputs) -> None:
    """Refuse when a run on the same population was stopped before its end and the inputs are no longer its.

    Its noise may not serve other inputs, so it cannot go on; beginning anew abandons it and charges every
    step that it began.
    """
    if is_new_release_meant():
        return
    for run in other_runs(stage, inputs.fingerprint(), population):
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
