"""The Prefect flow ``sweep``: a subflow for every point, so many at once, one ledger for all."""

import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from pipeline.compare.clones import Clone
from pipeline.compare.experiments import TARGETS, known, result
from pipeline.flow_log import tell_failures_in_a_sentence
from pipeline.runner import Stopped
from pipeline.sweep.points import Point

Row = dict[str, Any]


class Clones:
    """The clones of a sweep: taken by one point each, and no longer given out once the sweep ends."""

    def __init__(self, clones: Sequence[Clone]) -> None:
        """Lend ``clones``."""
        self._every = clones
        self._free: queue.Queue[Clone] = queue.Queue()
        self._ends = threading.Event()
        for clone in clones:
            self._free.put(clone)

    def run(self, name: str, changes: Mapping[str, str]) -> None:
        """Run an experiment in a clone that nobody uses and hand it to the checkout."""
        clone = self._free.get()
        try:
            if self._ends.is_set():
                raise Stopped(f"{name}: another point failed before it began")
            clone.reset()  # a point that the checkout has run spends nothing
            clone.run(name, changes, TARGETS)
        except BaseException:
            self._ends.set()  # before anybody else can take the clone
            raise
        finally:
            self._free.put(clone)

    def begin_no_other(self) -> None:
        """Let the points that run come to their end, and no other begin."""
        self._ends.set()

    def stop(self) -> None:
        """Ask the points that run to end now; what they have finished is kept."""
        self._ends.set()
        for clone in self._every:
            clone.runner.stop()


@flow(name="sweep-point", flow_run_name="{name}", persist_result=False, validate_parameters=False)
def run_point(name: str, values: Mapping[str, Any], changes: Mapping[str, str], clones: Clones) -> None:
    """Run one experiment; ``values`` are what Prefect shows of it."""
    get_run_logger().info("%s: %s", name, ", ".join(f"{key}={value}" for key, value in values.items()))
    clones.run(name, changes)


@task(name="point", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def as_subflow(name: str, values: Mapping[str, Any], changes: Mapping[str, str], clones: Clones) -> None:
    """Run a point as a subflow, for threads are those of tasks."""
    run_point(name, values, changes, clones)


@flow(name="sweep", persist_result=False, validate_parameters=False)
def sweep(root: Path, points: Sequence[Point], clones: Clones, at_once: int) -> list[Row]:
    """Run what is missing of ``points``, ``at_once`` of them together, and return a row for each.

    The first that fails ends the sweep, once the others that run have ended; Ctrl-C and SIGTERM end those
    too, which keep their finished steps. A later call goes on.
    """
    tell_failures_in_a_sentence()
    made = known(root, "sweep")
    missing = [point for point in {point.name: point for point in points}.values() if point.name not in made]
    pool: ThreadPoolTaskRunner[None] = ThreadPoolTaskRunner(max_workers=at_once)
    with pool as runner:
        try:
            given = [{"name": each.name, "values": each.values, "changes": each.changes} for each in missing]
            futures: list[PrefectFuture[None]] = [
                runner.submit(as_subflow, {**each, "clones": clones}) for each in given
            ]
            for future in as_completed(futures):
                future.result()
        except BaseException as error:
            clones.begin_no_other()
            if not isinstance(error, Exception):
                clones.stop()
            raise
    rows = rows_of(root, points)
    create_table_artifact(rows, key="sweep", description=f"{len(rows)} points")
    return rows


def rows_of(root: Path, points: Sequence[Point]) -> list[Row]:
    """Return what every point reached and what it spent."""
    made = known(root, "sweep")
    rows = []
    for point in points:
        metrics, statement = result(root, point.name, made[point.name])
        found = metrics["tuned"]["all"]
        rows.append(
            {
                **point.values,
                "zero_shot": metrics["zero_shot"]["all"]["accuracy"],
                "accuracy": found["accuracy"],
                "low": found["low"],
                "high": found["high"],
                "epsilon": statement["epsilon"],
                "delta": statement["delta"],
                "experiment": point.name,
            }
        )
    return rows
