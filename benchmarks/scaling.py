"""One process or two, the frozen base whole or sharded: ``python -m benchmarks.scaling --json FILE``.

Two processes are started; where one works alone, the other waits idle. All arms take turns in one run, on the
model of benchmarks/step_cost.py. Time is that of a private step without noise; bytes are those of the weights
that one process holds between steps, and of all tensors above them at the peak of a step.
"""

import argparse
import gc
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from benchmarks.llava_shaped import Size, frozen_model
from benchmarks.machine import about
from benchmarks.quartiles import in_words, quartiles
from benchmarks.step_cost import ARMS, CLIP, learner_of, units_of
from stages.core.files import write_json
from stages.core.launch import launch
from stages.core.ranks import ALONE, Ranks, is_launched, joined
from stages.privacy.clipping_rule import Clipping
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum
from stages.training.learner import Learner
from stages.vlm.sharding import shard_base

JSON = "DUALPRIV_BENCHMARK_JSON"
TOKENS, BATCH, MICRO_BATCH, PAIRS = 144, 8, 4, 7


@dataclass(frozen=True)
class Way:
    """How many processes take a step, and with how many threads each."""

    name: str
    processes: int
    threads: int
    shard: bool = False
    recompute: bool = False


WAYS = (
    Way("one process, 2 threads", 1, 2),
    Way("one process, 1 thread", 1, 1),
    Way("two processes, 1 thread each", 2, 1),
    Way("two processes, base sharded", 2, 1, shard=True),
    Way("two processes, base sharded, activations recomputed", 2, 1, shard=True, recompute=True),
)


def main() -> None:
    """Start two processes of this module, which measure, print and write."""
    if not is_launched():
        options = argparse.ArgumentParser(description=__doc__)
        options.add_argument("--json", type=Path, required=True)
        os.environ[JSON] = str(options.parse_args().json)
        sys.exit(launch("benchmarks.scaling", 2))
    with joined("cpu") as ranks:
        rows = measure(ranks)
        if ranks.leads:
            result = {"about": about(), "pairs": PAIRS, "rows": rows}
            write_json(Path(os.environ[JSON]), result)
            print(render(result))


def measure(ranks: Ranks) -> list[dict[str, Any]]:
    """Return one row a way, ratios to one process with two threads."""
    learners = [learner(way, ranks) for way in WAYS]
    peaks = [peak(way, held, ranks) for way, held in zip(WAYS, learners, strict=True)]
    ratios: list[list[float]] = [[] for _ in WAYS]
    for pair in range(PAIRS):
        for index, way in enumerate(WAYS):
            plain = seconds(WAYS[0], learners[0], ranks)
            ratios[index].append(seconds(way, learners[index], ranks) / plain)
        if ranks.leads:
            print(f"{pair + 1} of {PAIRS} pairs", file=sys.stderr, flush=True)
    found = []
    for way, held, values, above in zip(WAYS, learners, ratios, peaks, strict=True):
        found.append(
            {
                "way": way.name,
                "time_ratio": quartiles(values),
                "weight_bytes": weight_bytes(held),
                "bytes_above_weights": above,
            }
        )
    return found


def learner(way: Way, ranks: Ranks) -> Learner:
    """Return a learner for one way; those of one process know of no other."""
    arm = replace(ARMS[1], recompute=way.recompute)
    made = learner_of(arm, TOKENS, BATCH, frozen_model(Size()))
    if way.shard:
        shard_base(made.model, "cpu", ranks)
    speed = replace(made.speed, micro_batch=MICRO_BATCH, shard_base=way.shard)
    return replace(made, speed=speed, ranks=ranks if way.processes > 1 else ALONE)


def step(way: Way, held: Learner, ranks: Ranks) -> None:
    """Take a step; a process that has no part in it waits for the others."""
    torch.set_num_threads(way.threads)
    if way.processes > ranks.rank:
        clipped_gradient_sum(held, units_of(ARMS[1], BATCH), Clipping(CLIP))
    ranks.gathered(None)


def seconds(way: Way, held: Learner, ranks: Ranks) -> float:
    """Return how long a step takes until every process has ended it."""
    gc.collect()
    ranks.gathered(None)
    start = time.perf_counter()
    step(way, held, ranks)
    return time.perf_counter() - start


def peak(way: Way, held: Learner, ranks: Ranks) -> int:
    """Return the most bytes alive above the weights in one process."""
    step(way, held, ranks)
    with Allocations(held.model) as allocations:
        step(way, held, ranks)
    return allocations.peak


def weight_bytes(held: Learner) -> int:
    """Return the bytes of the weights that this process holds between steps."""
    total = 0
    for weight in held.model.parameters():
        kept: Any = weight.to_local() if isinstance(weight, DTensor) else weight
        total += kept.untyped_storage().nbytes()
    return total


def render(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [f"{result['about']}; medians and quartiles of {PAIRS} pairs, ways interleaved", ""]
    lines += ["| way | time ratio | weights in a process | above them at peak |", "|---|---|---|---|"]
    for row in result["rows"]:
        lines.append(
            f"| {row['way']} | {in_words(row['time_ratio'])} | "
            f"{row['weight_bytes'] / 2**20:.0f} MiB | {row['bytes_above_weights'] / 2**20:.0f} MiB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
