"""The Prefect flow ``sweep``: a subflow for every point, so many at once, one ledger for all."""

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from pipeline.compare.clones import Clone
from pipeline.compare.experiments import TARGETS, known, result
from pipeline.sweep.points import Point

Row = dict[str, Any]


@flow(name="sweep-point", flow_run_name="{point.name}", persist_result=False, validate_parameters=False)
def run_point(point: Point, clone: Clone) -> None:
    """Run one experiment in ``clone`` and hand it to the checkout."""
    get_run_logger().info(
        "%s: %s", point.name, ", ".join(f"{key}={value}" for key, value in point.values.items())
    )
    clone.run(point.name, point.changes, TARGETS)


@task(name="point", task_run_name="{point.name}", cache_policy=NO_CACHE, persist_result=False)
def in_a_free_clone(point: Point, free: "queue.Queue[Clone]") -> None:
    """Take a clone that nobody uses, run the point in it, and give it back."""
    clone = free.get()
    try:
        run_point(point, clone)
    finally:
        free.put(clone)


@flow(name="sweep", persist_result=False, validate_parameters=False)
def sweep(root: Path, points: Sequence[Point], clones: Sequence[Clone]) -> list[Row]:
    """Run what is missing of ``points``, one in each clone at a time, and return a row for each.

    The first that fails ends the sweep, once the others that run have ended; a later call goes on.
    """
    made = known(root, "sweep")
    missing = [point for point in {point.name: point for point in points}.values() if point.name not in made]
    free: queue.Queue[Clone] = queue.Queue()
    for clone in clones:
        free.put(clone)
    pool: ThreadPoolTaskRunner[None] = ThreadPoolTaskRunner(max_workers=max(1, len(clones)))
    with pool as runner:
        futures = [runner.submit(in_a_free_clone, {"point": point, "free": free}) for point in missing]
        for future in futures:
            future.result()
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
