"""The command ``dualpriv repro``: the stages through the runner, in the order of ``dvc.yaml``."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from pipeline.dvc_graph import Step, read_steps
from pipeline.runner import Runner, StageFailed, interrupted_by_sigterm
from stages.core.new_release import NEW_RELEASE


def repro_command(targets: tuple[str, ...], *, new_release: bool) -> None:
    """Bring ``targets`` and everything upstream up to date; exit 2 for a mistake, 1 for any other failure.

    ``new_release`` says that runs which stand in the way are to be abandoned, and runs the stages among
    ``targets`` that release a model again, with a fresh run key.
    """
    root = Path.cwd()
    steps = read_steps(root, targets)
    if new_release:
        os.environ[NEW_RELEASE] = "1"
    interrupted_by_sigterm()
    runner = Runner(root)

    def _is_again(step: Step) -> bool:
        return new_release and step.releases and step.name in targets

    for step in steps:
        try:
            outcome = runner.run(step, progress=_counter(step.name), force=_is_again(step))
        except StageFailed as failure:
            print(f"dualpriv: {failure}", file=sys.stderr)
            raise typer.Exit(2 if failure.is_mistake else 1) from None
        print(f"{step.name}: {outcome}", flush=True)


def _counter(name: str) -> Callable[[int, int], None]:
    """Return what shows the step number: one line that is rewritten, on a terminal only."""

    def show(done: int, of: int) -> None:
        if sys.stdout.isatty():
            print(f"\r{name}: step {done} of {of}", end="\n" if done == of else "", flush=True)

    return show
