"""Does a process grow by what was predicted of a step? On a model of 100 million weights, on the CPU.

``python -m benchmarks.process_memory --json FILE``. Each arm takes its step in a process of its own, so that
the largest resident size tells of that step alone; a small step is taken first, which brings what libraries
allocate once. By default glibc keeps much of what is freed, and a process grows by twice what is alive; where
``MALLOC_MMAP_THRESHOLD_`` is set it does not.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.llava_shaped import TEXT_TOKENS, Size, frozen_model, rows_of
from benchmarks.machine import about
from benchmarks.optim_section import ADAM
from benchmarks.step_cost import Arm, learner_of
from stages.core.files import read_json, write_json, write_text
from stages.training.micro_batches import Bounds
from stages.training.step_memory import StepMemory, unpriced, without_values_of
from stages.training.synthetic_rows import Shape
from stages.training.whole_step import whole_step

KIB, MIB = 2**10, 2**20
SIZE = Size(width=768, layers=13)
_AT_ONCE = 2**16
"""Bytes from which on glibc gives back what is freed, where it is told so."""
TOKENS, BATCH = 576, 8
ARMS: dict[str, tuple[Any, Any]] = {
    "non-private LoRA": ("lora", "nonprivate"),
    "DP-SGD, LoRA": ("lora", "gradient"),
    "DP-SGD, FFA-LoRA": ("ffa_lora", "gradient"),
    "DP-SGD, side network": ("side", "gradient"),
    "DP-SGD, reversible": ("reversible", "gradient"),
    "zeroth order, LoRA": ("lora", "zeroth_order"),
}


def measured(name: str) -> dict[str, Any]:
    """Return what a step needs and by how much this process grows; asked once a process."""
    kind, estimator = ARMS[name]
    model = frozen_model(SIZE)
    learner = learner_of(Arm(name, lambda *_: None, trainable=kind), TOKENS, BATCH, model)
    mechanism = unpriced(estimator, "whole")
    units = [np.array([row]) for row in range(BATCH)]
    whole = replace(learner, bounds=Bounds(BATCH, 2**62))
    memory = StepMemory(without_values_of(whole), mechanism)
    predicted = sum(memory.parts(_shapes(), 1, ADAM).values())
    small = replace(learner, encoded=rows_of(8, 1), bounds=Bounds(1, 2**62))
    whole_step(small, units[:1], mechanism, ADAM)
    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the largest size so far
    before = _resident("VmRSS")
    whole_step(whole, units, mechanism, ADAM)
    weights = sum(weight.numel() for weight in model.parameters())
    return {"arm": name, "weights": weights, "predicted": predicted, "grown": _resident("VmHWM") - before}


def _shapes() -> list[Any]:
    return [Shape(TEXT_TOKENS, 16, TOKENS)] * BATCH


def _resident(what: str) -> int:
    """Return the resident size, now (VmRSS) or at most (VmHWM), in bytes; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{what}:"))) * KIB


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    options.add_argument("--arm", choices=list(ARMS), help="measure one, in this process")
    given = options.parse_args()
    if given.arm:
        write_json(given.json, measured(given.arm))
        return
    rows = []
    for name in ARMS:
        found = _asked(name, given.json, {"MALLOC_MMAP_THRESHOLD_": str(_AT_ONCE)})
        rows.append({**found, "grown_by_default": _asked(name, given.json, {})["grown"]})
        print(name, file=sys.stderr, flush=True)
    write_json(given.json, rows)
    lines = ["| step | predicted MiB | grown by MiB | ratio | grown by default | ratio |", "|---" * 6 + "|"]
    for row in rows:
        predicted = row["predicted"]
        grown, default = row["grown"], row["grown_by_default"]
        lines.append(
            f"| {row['arm']} | {predicted / MIB:.0f} | {grown / MIB:.0f} | {grown / predicted:.2f} | "
            f"{default / MIB:.0f} | {default / predicted:.2f} |"
        )
    words = (
        f"{about('cpu')}; {rows[0]['weights'] / 1e6:.0f} M weights, batch {BATCH}, {TOKENS} visual tokens\n\n"
    )
    write_text(
        given.json.with_suffix(".md"), "# A process and its prediction\n\n" + words + "\n".join(lines) + "\n"
    )
    print(words + "\n".join(lines))


def _asked(name: str, file: Path, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.process_memory", "--arm", name, "--json", str(file)]
    subprocess.run(command, check=True, env={**os.environ, **environment})
    found: dict[str, Any] = read_json(file)
    return found


if __name__ == "__main__":
    main()
