"""A program of ``dualpriv budget``: how long a training step takes here, on public records.

``python -m stages.training.step_time REQUEST.json ANSWER.json``; a process of its own, for it takes torch.
Nothing is planned, reserved or charged, and no private record is read.
"""

import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stages.core.entry import is_ours, quiet_accountants, refuse
from stages.core.files import read_json, write_json
from stages.core.speed import Speed, use
from stages.core.stopping import stop_once
from stages.records.row import Row
from stages.records.store import read_rows
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.rehearsal import Rehearsal
from stages.training.whole_step import whole_step
from stages.vlm.encoder import encode_set
from stages.vlm.family import load


def step_times(params: dict[str, Any], units: int, repeats: int, speed: Speed) -> list[dict[str, float]]:
    """Return the median time of steps on a quarter of the public units and on all, of at most ``units``.

    Units are looked at in the micro-batches of ``speed``. The noise of a run is drawn in a thread beside the
    step before; here it is added, and not drawn.
    """
    run = Rehearsal.of(params)
    rule = run.rule()
    loaded = load(run.backbone, device=speed.device, precision=run.model.precision)
    rows = first_units(read_rows(run.public), units, run.estimator.rows_per_unit)
    learner = run.learner(encode_set(loaded, rows, rule), speed)
    every = learner.encoded.rows_by_unit()
    counts = sorted({max(1, len(every) // 4), len(every)})
    mechanism = Mechanism.of(run.plan())

    def seconds(count: int) -> float:
        start = _now(learner)
        whole_step(learner, every[:count], mechanism, run.optim)
        return _now(learner) - start

    for count in counts:
        seconds(count)  # the first one allocates
    found: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            found[count].append(seconds(count))
    return [{"units": count, "seconds": statistics.median(times)} for count, times in found.items()]


def first_units(rows: Sequence[Row], units: int, rows_per_unit: int) -> list[Row]:
    """Return at most ``rows_per_unit`` rows of each of the first units, in their order."""
    taken: dict[str, list[Row]] = {}
    for row in rows:
        if row.unit in taken or len(taken) < units:
            taken.setdefault(row.unit, []).append(row)
    return [row for own in taken.values() for row in own[:rows_per_unit]]


def _now(learner: Learner) -> float:
    if learner.device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def _here(speed: Speed) -> str:
    today = datetime.date.today().isoformat()
    return f"{today}, {platform.machine()}, {os.cpu_count()} cores, {speed.device}, torch {torch.__version__}"


def main() -> None:
    """Answer a request."""
    request = read_json(Path(sys.argv[1]))
    speed = use(Speed.load())
    stop_once()
    quiet_accountants()
    try:
        steps = step_times(request["params"], request["units"], request["repeats"], speed)
    except (ValueError, KeyError, TypeError) as error:
        if not is_ours(error):
            raise
        refuse("calibration", error)
    write_json(Path(sys.argv[2]), {"about": _here(speed), "steps": steps})


if __name__ == "__main__":
    main()
