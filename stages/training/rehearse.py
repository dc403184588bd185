"""A program of ``dualpriv compare``: what settings reach, or what steps cost, on public records.

``python -m stages.training.rehearse REQUEST.json ANSWER.json``; a process of its own, for it takes torch.
"""

import datetime
import fcntl
import gc
import hashlib
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stages.core.canonical import canonical_digest
from stages.core.entry import is_ours, refuse
from stages.core.files import read_json, write_json
from stages.core.schema import parse
from stages.core.scratch import scratch_folder
from stages.core.speed import Speed, use
from stages.core.stopping import stop_once
from stages.records.encoded import EncodedSet, read_encoded, write_encoded
from stages.records.row import Row
from stages.records.source import Source, read_source
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.micro_batches import Bounds, Units
from stages.training.optimizer import Optim
from stages.training.rehearsal import Prepared, Rehearsal
from stages.training.step_memory import StepMemory, without_values_of
from stages.training.whole_step import whole_step
from stages.vlm.encoder import encode_set
from stages.vlm.family import load
from stages.vlm.selection import Rule

HELD_OUT = 0.2


@dataclass(frozen=True)
class Records:
    """The stand-in, encoded as each run wants it, once."""

    source: Source
    speed: Speed
    code: Any
    """What changes with the records and with the code that encodes them."""

    def of(self, run: Rehearsal) -> tuple[EncodedSet, EncodedSet]:
        """Return rows to train on and held-out rows, under the rule of a run; four units in five train."""
        rule = run.rule()
        folder = scratch_folder("compare", "encoded", self.key(run, rule))
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several processes may want the same at once
            if not (folder / "heldout").is_dir():
                self._write(run, rule, folder)
        return read_encoded(folder / "train"), read_encoded(folder / "heldout")

    def key(self, run: Rehearsal, rule: Rule) -> str:
        """Return what changes with anything that decides how the rows are encoded."""
        model = {**asdict(run.model), "path": str(run.model.path)}  # what lies there is in ``code``
        decides = [asdict(rule), self.code, model, self.speed.device]
        return canonical_digest(decides)[:32]

    def _write(self, run: Rehearsal, rule: Rule, folder: Path) -> None:
        loaded = load(run.backbone, device=self.speed.device, precision=run.model.precision)
        rows = [sourced.row for sourced in read_source(self.source)]
        for name in ("train", "heldout"):
            part = [row for row in rows if _is_held_out(row) == (name == "heldout")]
            write_encoded(folder / name, encode_set(loaded, part, rule), None)


@dataclass(frozen=True)
class Step:
    """One training step of a run on some units, all at once, to be timed and counted."""

    learner: Learner
    units: Units
    mechanism: Mechanism
    optim: Optim

    @classmethod
    def of(cls, run: Rehearsal, encoded: EncodedSet, units: int, speed: Speed) -> "Step":
        """Prepare the step."""
        taken = [rows[: run.estimator.rows_per_unit] for rows in encoded.rows_by_unit()[:units]]
        bounds = Bounds(sum(map(len, taken)), 2**62)
        learner = replace(run.learner(encoded, speed), bounds=bounds)
        return cls(learner, taken, Mechanism.of(run.plan()), run.optim)

    def seconds(self) -> float:
        """Return how long a look at the units and the update take.

        The noise of a run is drawn in a thread beside the step before; here it is added, and not drawn.
        """
        gc.collect()
        start = time.perf_counter()
        whole_step(self.learner, self.units, self.mechanism, self.optim)
        return time.perf_counter() - start

    def bytes(self) -> int:
        """Return the most bytes above the weights while a step looks at its units."""
        last = max(int(rows.max()) for rows in self.units)
        encoded = replace(self.learner.encoded, rows=self.learner.encoded.rows[: last + 1])
        return StepMemory(without_values_of(self.learner), self.mechanism).bytes(encoded, self.units)


def accuracies(runs: list[dict[str, Any]], records: Records) -> list[float]:
    """Train each run on the stand-in and return the share of held-out rows that it answers exactly.

    Runs in a row that begin with the same learner share it.
    """
    found: list[float] = []
    prepared = None
    for params in runs:
        run = Rehearsal.of(params)
        if prepared is None or not prepared.serves(run):
            prepared = None  # its model goes before the next is loaded
            prepared = Prepared.of(run, *records.of(run), records.speed)
        found.append(prepared.accuracy(run))
    return found


def costs(runs: list[dict[str, Any]], records: Records, units: int, pairs: int) -> dict[str, Any]:
    """Return time and bytes of each run's step relative to the first's; timed right after one of that."""
    steps = []
    for params in runs:
        run = Rehearsal.of(params)
        encoded, _ = records.of(run)
        steps.append(Step.of(run, encoded, units, records.speed))
    for step in steps:
        step.seconds()  # the first one allocates
    ratios: list[list[float]] = [[] for _ in steps]
    for _ in range(pairs):
        for index, step in enumerate(steps):
            first = steps[0].seconds()
            ratios[index].append(step.seconds() / first)
    peaks = [step.bytes() for step in steps]
    rows = [
        {"time": statistics.median(own), "low": min(own), "high": max(own), "bytes": peak / peaks[0]}
        for own, peak in zip(ratios, peaks, strict=True)
    ]
    return {"about": _here(), "rows": rows}


def _is_held_out(row: Row) -> bool:
    return int(hashlib.sha256(row.unit.encode()).hexdigest()[:8], 16) / 2**32 < HELD_OUT


def _here() -> str:
    threads = f"{torch.get_num_threads()} threads"
    today = datetime.date.today().isoformat()
    return f"{today}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {threads}"


def main() -> None:
    """Answer a request."""
    request = read_json(Path(sys.argv[1]))
    source = parse(request["stand_in"], Source, "stand_in")
    records = Records(source, use(Speed.load()), request["code"])
    stop_once()
    try:
        if request["what"] == "accuracies":
            answer: Any = accuracies(request["runs"], records)
        else:
            answer = costs(request["runs"], records, request["units"], request["pairs"])
    except (ValueError, KeyError, TypeError) as error:
        if not is_ours(error):
            raise
        refuse("compare", error)
    write_json(Path(sys.argv[2]), answer)


if __name__ == "__main__":
    main()
