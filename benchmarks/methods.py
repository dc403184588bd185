"""What a step of each method costs: time and bytes above the weights, in one run.

``python -m benchmarks.methods --json FILE``. The model, the rows and the way of measuring are those of
``benchmarks.step_cost``: each timed step comes right after a non-private LoRA step on all tokens, to which
every ratio is. All private steps include their noise. Zeroth order is also compared with what it consists of:
two forward passes, and the bytes of one.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch

from benchmarks.llava_shaped import Size
from benchmarks.machine import about
from benchmarks.quartiles import in_words
from benchmarks.step_cost import CLIP, KEPT, Arm, measure, ours, plain, render
from stages.core.files import write_json, write_text
from stages.privacy.clipping_rule import Clipping
from stages.privacy.directions import Directions
from stages.privacy.noise import add_noise
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.stream import RunKey, Streams
from stages.training.learner import Learner
from stages.training.micro_batches import Units
from stages.training.zeroth_order import along, clipped_slope_sum

_DIRECTIONS = Directions(count=1, perturbation=1e-3, seed=0)


def zeroth_order() -> Callable[[Learner, Units], Any]:
    """Return DPZero's private step, from two forward passes to the noisy gradient."""
    streams, numbers = Streams(RunKey.fresh(), "benchmark", "finetune"), count()

    def step(learner: Learner, units: Units) -> Any:
        number = next(numbers)
        clipped = clipped_slope_sum(learner, units, _DIRECTIONS, Clipping(CLIP), "l2", number)
        with PreparedNoise(streams, {"slopes": 1}, number + 1, learner.device) as noise:
            noisy = add_noise(clipped, 1.0, noise.at(number))
        return along(noisy, _DIRECTIONS, learner.trainable, number)

    return step


@torch.no_grad()
def forward(learner: Learner, units: Units) -> Any:
    """Take the losses once, as inference would."""
    return [learner.losses(batch.rows) for batch in learner.shared_micro_batches(units)]


def two_forward(learner: Learner, units: Units) -> Any:
    """Take the losses twice."""
    return forward(learner, units), forward(learner, units)


def _both(name: str, step: Callable[[Learner, Units], Any], **more: Any) -> tuple[Arm, Arm]:
    """Return an arm on all tokens and one on the kept ones."""
    return Arm(name, step, **more), Arm(f"{name}, {KEPT} visual tokens", step, kept=True, **more)


ARMS = (
    *_both("non-private LoRA", plain),
    *_both("DP-SGD, LoRA", ours()),
    *_both("DP-SGD, FFA-LoRA", ours(), trainable="ffa_lora"),
    *_both("DP-SGD, side network", ours(), trainable="side"),
    *_both("DP-SGD, side network, backbone run again", ours(), trainable="side", recompute=True),
    *_both("DP-SGD, reversible", ours(), trainable="reversible"),
    *_both("zeroth order (DPZero), LoRA", zeroth_order()),
    *_both("two forward passes", two_forward),
    *_both("one forward pass", forward),
)


TARGETS = (
    ("DP-SGD, side network", "time_ratio", 0.6),
    ("DP-SGD, side network", "bytes_ratio", 0.25),
    (f"DP-SGD, side network, {KEPT} visual tokens", "time_ratio", 0.12),
    (f"DP-SGD, side network, {KEPT} visual tokens", "bytes_ratio", 0.06),
    ("DP-SGD, reversible", "time_ratio", 1.6),
    ("DP-SGD, reversible", "bytes_ratio", 0.35),
)
"""Arm, quantity, and the most that it should be."""


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, default=576)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--device", default="cpu")
    options.add_argument("--width", type=int, default=Size.width)
    options.add_argument("--layers", type=int, default=Size.layers)
    options.add_argument("--pairs", type=int, default=7)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    size = Size(given.width, given.layers, given.device)
    rows = measure(list(ARMS), given.tokens, given.batch, size, given.pairs, repeat=1)
    write_json(given.json, rows)
    words = (
        f"{about(given.device)}; medians and quartiles of {given.pairs} pairs, arms interleaved.\n\n"
        f"{render(rows)}\n\n{beside_inference(rows)}\n\n{against_targets(rows)}\n"
    )
    write_text(given.json.with_suffix(".md"), f"# What a step of each method costs\n\n{words}")
    print(words, file=sys.stdout)


def beside_inference(rows: list[dict[str, Any]]) -> str:
    """Say how zeroth order compares with its own forward passes."""
    by_name = {row["arm"]: row for row in rows}
    said = []
    for name, row in by_name.items():
        if not name.startswith("zeroth order"):
            continue
        tail = name.partition("LoRA")[2]
        twice, once = by_name[f"two forward passes{tail}"], by_name[f"one forward pass{tail}"]
        time = row["time_ratio"]["median"] / twice["time_ratio"]["median"]
        bytes_ = row["bytes_above_weights"] / once["bytes_above_weights"]
        said.append(
            f"{name}: {time:.2f} x the time of two forward passes (their ratio: "
            f"{in_words(twice['time_ratio'])}), {bytes_:.2f} x the bytes of one."
        )
    return "\n\n".join(said)


def against_targets(rows: list[dict[str, Any]]) -> str:
    """Say which targets are met."""
    by_name = {row["arm"]: row for row in rows}
    said = []
    for name, quantity, most in TARGETS:
        found = by_name[name][quantity]
        ratio = found["median"] if isinstance(found, dict) else found
        verdict = "met" if ratio <= most else "missed"
        said.append(f"{name}: {quantity.partition('_')[0]} {ratio:.3f}, wanted {most:g}: {verdict}.")
    return "Targets. " + " ".join(said)


if __name__ == "__main__":
    main()
