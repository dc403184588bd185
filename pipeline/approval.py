"""Ask a person before a stage spends: the flow waits, and an answer is for one stage on one set of inputs."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

from prefect import get_run_logger, pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run

from pipeline.dvc_command import dvc
from pipeline.dvc_graph import Step
from pipeline.runner import StageFailed, environment
from pipeline.stage_output import StageOutput
from stages.core.spending import Spending, spending_from_json
from stages.privacy.approval import Approval
from stages.training.approved import NOBODY, VARIABLE

PATIENCE = 7 * 24 * 3600
"""Seconds for which an answer is waited for."""


class Answer(RunInput):
    """What a person says."""

    approve: bool
    by: str
    reason: str


class NotApproved(RuntimeError):
    """A person said no."""


def approved(root: Path, step: Step, *, force: bool, before_waiting: Callable[[], object]) -> dict[str, str]:
    """Return the variables with which ``step`` may run: those of an approval, where a person had to be asked.

    Nobody is asked where DVC has the result, where the stage spends nothing, and where it goes on with what
    it has reserved. In a deployment the run is suspended, and its process ends, until there is an answer;
    else it waits; ``before_waiting`` is called before. Errors: NotApproved where the answer is no.

    Guarantee: a stage that was not asked about reserves nothing new, and an answer is worth one release: the
    ledger refuses both.
    """
    spending = _asked(root, step) if force or _runs(root, step) else None
    if spending is None:
        return {VARIABLE: NOBODY}
    before_waiting()
    get_run_logger().info("%s waits for approval: %s", step.name, spending.what)
    form = Answer.with_initial_data(description=question(spending))
    key = f"{step.name}-{spending.fingerprint[:16]}"
    wait = pause_flow_run if deployment.id is None else suspend_flow_run
    answer = wait(wait_for_input=form, timeout=PATIENCE, key=key)
    said = Approval(
        by=answer.by,
        reason=answer.reason,
        fingerprint=spending.fingerprint,
        asked_in=UUID(flow_run.id).hex,
    )
    if not answer.approve:
        raise NotApproved(f"{step.name}: {said.by} did not approve: {said.reason}")
    get_run_logger().info("%s: approved by %s: %s", step.name, said.by, said.reason)
    return {VARIABLE: json.dumps(asdict(said))}


def question(spending: Spending) -> str:
    """Return what a person is shown, in Markdown."""
    return "\n".join(
        [
            f"# May {spending.stage} spend?",
            "",
            f"- population: {spending.population}",
            f"- what: {spending.what}",
            f"- what remains before it: {spending.remains}",
            f"- inputs: fingerprint `{spending.fingerprint}`",
            "",
            "The answer is kept in the ledger with the reservation, by name and with the reason. The limit "
            "of the ledger stands whatever the answer is.",
        ]
    )


def _runs(root: Path, step: Step) -> bool:
    """Tell whether the stage is not up to date.

    That DVC says a result is in its cache counts for nothing: before it runs, it looks by old inputs.
    """
    output = StageOutput(step.name, lambda line: None, lambda done, of: None)
    for line in dvc(root, "repro", "--single-item", "--dry", step.name).splitlines():
        output.take(line)
    return output.outcome not in ("unchanged", "frozen")


def _asked(root: Path, step: Step) -> Spending | None:
    command = [sys.executable, "-m", "stages.core.asked", step.name]
    found = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True)
    if found.returncode:
        said = found.stderr.splitlines() or ["it does not say what it would spend"]
        reason = said[-1].removeprefix(f"stages.{step.name}: ")
        raise StageFailed(step.name, reason, found.returncode, tuple(said))
    return spending_from_json(found.stdout)
