"""How fast noise is drawn, and what it costs a step when it is drawn ahead.

``python -m benchmarks.noise_throughput --json FILE``. A step of stage finetune (8 rows of 208 tokens, the
model of benchmarks/step_cost.py) at several numbers of trainable weights, right after each other: without
noise, with noise drawn ahead in a thread (the next step's, while the timed one computes), and with noise
drawn when it is needed. On a GPU: ``--device cuda --repeat 10``, ten steps in a row, one draw beside each.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.llava_shaped import Size, frozen_model
from benchmarks.machine import about, finished
from benchmarks.quartiles import in_words, quartiles
from benchmarks.step_cost import ARMS, CLIP, learner_of, units_of
from stages.core.files import write_json
from stages.core.speed import use
from stages.privacy.clipping_rule import Clipping
from stages.privacy.noise import add_noise
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.stream import RunKey, Streams
from stages.training.estimators import clipped_gradient_sum

DRAWS = (10**5, 10**6, 10**7)
RANKS = (16, 88, 349)
"""LoRA ranks on the attention layers: 0.46, 2.5 and 10.0 million trainable weights."""
TOKENS, BATCH, PAIRS = 144, 8, 7


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", default="cpu")
    options.add_argument("--repeat", type=int, default=1, help="steps in a row in each reading of the clock")
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    result = {
        "about": about(given.device),
        "draws": [drawn(count) for count in DRAWS],
        "steps": [steps(rank, given.device, given.repeat) for rank in RANKS],
    }
    write_json(given.json, result)
    print(render(result))


def drawn(count: int) -> dict[str, Any]:
    """Return how long ``count`` Gaussians take, in one thread."""
    streams = Streams(RunKey.fresh(), "benchmark", "finetune")
    seconds = []
    for step in range(PAIRS):
        start = time.perf_counter()
        streams.at("noise", step).gaussian(count)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return {"count": count, "seconds": median, "millions_a_second": count / median / 1e6}


def steps(rank: int, device: str, repeat: int) -> dict[str, Any]:
    """Return step times with noise ahead and within, as ratios to the same step without noise."""
    learner = learner_of(replace(ARMS[1], rank=rank), TOKENS, BATCH, frozen_model(Size(device=device)))
    use(learner.speed)
    units = units_of(ARMS[1], BATCH)
    sizes = {name: weight.numel() for name, weight in learner.trainable.parameters().items()}

    def without(step: int) -> None:
        clipped_gradient_sum(learner, units, Clipping(CLIP))

    def noisy(prepared: PreparedNoise, step: int) -> None:
        add_noise(clipped_gradient_sum(learner, units, Clipping(CLIP)), 1.0, prepared.at(step))

    def drawing(step: int) -> None:
        with PreparedNoise(streams, sizes, 1, device) as fresh:
            noisy(fresh, 0)

    ahead, within, plain = [], [], []
    streams = Streams(RunKey.fresh(), "benchmark", "finetune")
    without(0)  # warms up
    for _ in range(PAIRS):
        with PreparedNoise(streams, sizes, repeat + 2, device) as running:
            noisy(running, 0)  # begins to draw what the first timed step uses, and goes on beside it
            ahead.append(_seconds(device, repeat, partial(noisy, running)))
        plain.append(_seconds(device, repeat, without))
        within.append(_seconds(device, repeat, drawing))
    return {
        "trainable_weights": sum(sizes.values()),
        "ahead": quartiles([a / b for a, b in zip(ahead, plain, strict=True)]),
        "within": quartiles([a / b for a, b in zip(within, plain, strict=True)]),
        "seconds_without": statistics.median(plain),
    }


def _seconds(device: str, repeat: int, act: Callable[[int], None]) -> float:
    gc.collect()
    finished(device)
    start = time.perf_counter()
    for step in range(1, repeat + 1):
        act(step)
    finished(device)
    return (time.perf_counter() - start) / repeat


def render(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [f"{result['about']}; medians and quartiles of {PAIRS} pairs", ""]
    lines += ["| Gaussians | seconds | millions a second |", "|---|---|---|"]
    for row in result["draws"]:
        lines.append(f"| {row['count']:,} | {row['seconds']:.3f} | {row['millions_a_second']:.1f} |")
    lines += ["", "| trainable weights | drawn ahead | drawn within the step |", "|---|---|---|"]
    for row in result["steps"]:
        cells = [in_words(row[name], 3) for name in ("ahead", "within")]
        lines.append(f"| {row['trainable_weights']:,} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
