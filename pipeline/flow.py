"""The Prefect flow ``finetune``: one task a stage, in the order of ``dvc.yaml``.

Prefect decides when a stage runs, DVC decides whether: Prefect's own caching and stored results are off. The
flow takes no hyper-parameters, because ``params.yaml`` is the only place for them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from pipeline.dvc_graph import Step, read_steps
from pipeline.runner import Outcome, Runner, StageFailed

STATEMENT = Path("data/account/statement.json")
RETRY_DELAY = 5


def is_worth_retrying(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Say whether a failed stage may run again: after a crash, never after a cancellation or a mistake."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageFailed) and not error.is_mistake


@task(
    name="stage",
    task_run_name="{step.name}",
    retry_condition_fn=is_worth_retrying,
    retry_delay_seconds=RETRY_DELAY,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def run_stage(step: Step, runner: Runner, force: bool, pull: bool) -> Outcome:
    """Bring one stage up to date; progress goes to an artifact, its lines to the log of the run."""
    log = get_run_logger()
    outcome = runner.run(step, say=log.info, progress=_ProgressArtifact(step), force=force, pull=pull)
    log.info("%s: %s", step.name, outcome)
    return outcome


# One stage at a time: they share the accelerator, the locks of DVC and the budget.
ONE_AT_A_TIME: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)


@flow(name="finetune", task_runner=ONE_AT_A_TIME, persist_result=False)  # type: ignore[arg-type] # futures of its own
def finetune(
    targets: list[str] | None = None, force: list[str] | None = None, pull: bool = False
) -> dict[str, Outcome]:
    """Run the pipeline in the current directory and say what happened to each stage.

    ``targets`` are the stages wanted, with everything upstream (all); ``force`` the stages to run even
    if they are up to date; ``pull`` fetches missing outputs from the DVC remote.
    """
    root = Path.cwd()
    steps = read_steps(root, targets or ())
    forced = _known(force or [], steps)
    get_run_logger().info("dvc.yaml: %s", " -> ".join(step.name for step in steps))
    with _stopped_on_the_way_out(Runner(root)) as runner:
        futures: dict[str, PrefectFuture[Outcome]] = {}
        for step in steps:
            futures[step.name] = run_stage.with_options(retries=step.retries).submit(
                step,
                runner,
                force=step.name in forced,
                pull=pull,
                return_state=False,
                wait_for=[futures[name] for name in step.upstream],
            )
        outcomes = {name: future.result() for name, future in futures.items()}
    _publish_statement(root / STATEMENT)
    if "ran" in outcomes.values():
        get_run_logger().info(
            "commit dvc.lock and the evidence files under data/ to keep the record of this run"
        )
    return outcomes


@contextmanager
def _stopped_on_the_way_out(runner: Runner) -> Iterator[Runner]:
    """Stop the runner on any way out: cancellation, crash, or a failed stage while another still runs."""
    try:
        yield runner
    finally:
        runner.stop()


def _known(names: list[str], steps: tuple[Step, ...]) -> frozenset[str]:
    unknown = sorted(set(names) - {step.name for step in steps})
    if unknown:
        raise ValueError(f"force names {unknown}, which are not among the stages of this run")
    return frozenset(names)


class _ProgressArtifact:
    """The bar that Prefect shows for a stage; made at the first step that is reported."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._artifact: UUID | None = None

    def __call__(self, done: int, of: int) -> None:
        percent = 100.0 * done / of
        if self._artifact is None:
            key = "progress-" + self._step.name.replace("_", "-")
            made = create_progress_artifact(percent, key=key, description=self._step.summary)
            assert isinstance(made, UUID)  # a coroutine only where an event loop runs
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent)


def _publish_statement(path: Path) -> None:
    """Show the privacy statement in Prefect as a table, where the pipeline has written one."""
    if not path.exists():
        return
    rows = [f"| {key} | {json.dumps(value)} |" for key, value in json.loads(path.read_text()).items()]
    table = "\n".join(["# What privacy was spent", "", "| | |", "|---|---|", *rows])
    create_markdown_artifact(table, key="privacy-statement", description=str(STATEMENT))


if __name__ == "__main__":
    finetune()
