"""The Prefect flow ``finetune``: one task a stage, in the order of ``dvc.yaml``.

Prefect decides when a stage runs, DVC decides whether: Prefect's own caching and stored results are off. The
flow takes no hyper-parameters, because ``params.yaml`` is the only place for them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from pipeline.approval import approved
from pipeline.artifacts import ProgressArtifact, publish_results
from pipeline.deployed.clone import prepare, run_name
from pipeline.deployed.handing_over import hand_over
from pipeline.dvc_graph import Step, read_steps, recorded
from pipeline.flow_log import tell_failures_in_a_sentence
from pipeline.runner import Outcome, Runner, StageFailed
from stages.core.entry import end_with_parent

RETRY_DELAY = 5
LONGEST_END = 25.0
"""Seconds that a stage which was told to stop has for ending; the runner kills it before."""


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
def run_stage(step: Step, runner: Runner, force: str | None, pull: bool, given: dict[str, str]) -> Outcome:
    """Bring one stage up to date; progress goes to an artifact, its lines to the log of the run.

    ``force`` is what DVC has recorded of a stage that is to run again; an attempt after one that DVC has
    recorded forces nothing.
    """
    log = get_run_logger()
    progress = ProgressArtifact(step)
    is_forced = force is not None and recorded(runner.root, step.name) == force
    outcome = runner.run(step, say=log.info, progress=progress, force=is_forced, pull=pull, given=given)
    log.info("%s: %s", step.name, outcome)
    return outcome


# One stage at a time: they share the accelerator, the locks of DVC and the budget.
ONE_AT_A_TIME: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)


@flow(name="finetune", task_runner=ONE_AT_A_TIME, persist_result=False)  # type: ignore[arg-type] # futures of its own
def finetune(
    targets: list[str] | None = None,
    force: list[str] | None = None,
    pull: bool = False,
    approval: Literal["person", "none"] = "person",
) -> dict[str, Outcome]:
    """Run the pipeline in the current directory and say what happened to each stage.

    ``targets`` are the stages wanted, with everything upstream (all); ``force`` the stages to run even
    if they are up to date, once in a run that is suspended and resumed; ``pull`` fetches missing outputs from
    the DVC remote; ``approval`` is who is asked before a stage spends.

    Guarantee: however the run ends, unless it is killed, what its stages left is handed over.
    """
    tell_failures_in_a_sentence()
    root, run = Path.cwd(), run_name(str(flow_run.name), UUID(flow_run.id))
    if deployment.id is not None:
        end_with_parent()  # a worker that is killed leaves no run behind, whose stages would leave none
    has_earlier = prepare(root, run, os.environ)
    steps = read_steps(root, targets or ())
    forced = _known(force or [], steps) - (_ended_well() if has_earlier else frozenset())
    get_run_logger().info("dvc.yaml: %s", " -> ".join(step.name for step in steps))
    futures: dict[str, PrefectFuture[Outcome]] = {}
    with _handed_over(root, run), _stopped_on_the_way_out(Runner(root), futures) as runner:
        for step in steps:
            given, is_forced = {}, step.name in forced
            if step.approve and approval == "person" and _succeeded(futures, step.upstream):
                given = approved(root, step, force=is_forced, before_waiting=lambda: hand_over(root, run))
            futures[step.name] = run_stage.with_options(retries=step.retries).submit(
                step,
                runner,
                force=recorded(root, step.name) if is_forced else None,
                pull=pull,
                given=given,
                return_state=False,
                wait_for=[futures[name] for name in step.upstream],
            )
        outcomes = {name: future.result() for name, future in futures.items()}
    branch = hand_over(root, run)
    publish_results(root, branch)
    if branch is not None:
        get_run_logger().info("parameters, dvc.lock and evidence are in branch %s", branch)
    elif "ran" in outcomes.values():
        get_run_logger().info(
            "commit dvc.lock and the evidence files under data/ to keep the record of this run"
        )
    return outcomes


@contextmanager
def _stopped_on_the_way_out(
    runner: Runner, futures: Mapping[str, PrefectFuture[Outcome]]
) -> Iterator[Runner]:
    """Stop the runner on any way out: cancellation, crash, or a failed stage while another still runs."""
    try:
        yield runner
    finally:
        runner.stop()
        for future in futures.values():
            future.wait(timeout=LONGEST_END)


@contextmanager
def _handed_over(root: Path, run: str) -> Iterator[None]:
    """Hand over what a run left that does not end well; that it failed stays what is told first."""
    try:
        yield
    except BaseException:  # a cancellation and a suspension too
        try:
            branch = hand_over(root, run)
        except (ValueError, OSError) as error:
            get_run_logger().error("%s", error)
        else:
            if branch is not None:
                get_run_logger().info("what ended well is in branch %s", branch)
        raise


def _succeeded(futures: Mapping[str, PrefectFuture[Outcome]], upstream: tuple[str, ...]) -> bool:
    """Wait for every stage before, which may hold DVC's lock, and tell whether all upstream ended well."""
    for future in futures.values():
        future.wait()
    return all(futures[name].state.is_completed() for name in upstream)


def _ended_well() -> frozenset[str]:
    """Return the stages that have ended well in this run already, before it was suspended."""
    this = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run.id)]))
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(flow_run_filter=this)
    return frozenset(run.name for run in found if run.state is not None and run.state.is_completed())


def _known(names: list[str], steps: tuple[Step, ...]) -> frozenset[str]:
    unknown = sorted(set(names) - {step.name for step in steps})
    if unknown:
        raise ValueError(f"force names {unknown}, which are not among the stages of this run")
    return frozenset(names)


if __name__ == "__main__":
    finetune()
