"""What a private step costs beside a plain one: time and bytes, in one run.

Each timed step comes right after a non-private one, arm after arm, so that the machine's moods meet both.
``python -m benchmarks.step_cost --json FILE``. A LLaVA-shaped model of about 25 M weights reads cached visual
features, as stage finetune does: 144 or 576 visual tokens and 64 of text, and pruned to 64 visual tokens.
Every ratio is to the non-private LoRA step (attention layers) on all tokens of the same batch. On a GPU,
``--device cuda --repeat 5`` times five steps in a row, so that the next one's noise is drawn beside each.
"""

import argparse
import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping

from benchmarks.llava_shaped import TEXT_TOKENS, Size, frozen_model, rows_of, sharing_weights
from benchmarks.machine import about, finished
from benchmarks.quartiles import in_words, quartiles
from benchmarks.trainable_section import trainable_section
from stages.core.files import write_json
from stages.core.speed import Speed, use
from stages.privacy.clipping_rule import Clipping
from stages.privacy.noise import add_noise
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.stream import RunKey, Streams
from stages.privacy.trainable_layers import TrainableLayers
from stages.trainable.adapters import attach
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum, plain_gradient_sum
from stages.training.learner import Learner
from stages.training.micro_batches import Units
from stages.vlm.activations import recompute_activations
from stages.vlm.attribution import first_axis
from stages.vlm.families.llava import Llava

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
KEPT = 64
CLIP = 1.0
STEPS = 1000


@dataclass(frozen=True)
class Arm:
    """One way to take a step."""

    name: str
    step: Callable[[Learner, Units], Any]
    kept: bool = False
    """On 64 visual tokens instead of all."""
    trainable: str = "lora"
    targets: tuple[str, ...] = ATTENTION
    rank: int = 16
    rows_per_unit: int = 1
    recompute: bool = False
    wrap: Callable[[Any], Any] = lambda model: model


def plain(learner: Learner, units: Units) -> Any:
    """Take the gradient without privacy."""
    return plain_gradient_sum(learner, units)


def ours(rule: Any = "flat", groups: Any = "whole") -> Callable[[Learner, Units], Any]:
    """Return our private step, noise included."""
    streams = Streams(RunKey.fresh(), "benchmark", "finetune")
    running: dict[int, tuple[PreparedNoise, Iterator[int]]] = {}

    def step(learner: Learner, units: Units) -> Any:
        if id(learner) not in running:
            sizes = {name: weight.numel() for name, weight in learner.trainable.parameters().items()}
            running[id(learner)] = PreparedNoise(streams, sizes, STEPS, learner.device), iter(range(STEPS))
        noise, steps = running[id(learner)]
        clipped = clipped_gradient_sum(learner, units, Clipping(CLIP, rule, groups))
        return add_noise(clipped, 1.0, noise.at(next(steps)))

    return step


def opacus_hooks(learner: Learner, units: Units) -> Any:
    """Take Opacus's per-sample gradients by hooks, clip and sum them."""
    learner.model.zero_grad()
    learner.losses(np.concatenate(units).tolist()).sum().backward()  # type: ignore[no-untyped-call]
    samples = [weight.grad_sample for weight in learner.model.parameters() if weight.requires_grad]
    norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples]).norm(dim=0)
    factor = (CLIP / (norms + 1e-6)).clamp(max=1.0)
    total = [torch.einsum("u,u...->...", factor, sample) for sample in samples]
    for weight in learner.model.parameters():
        if weight.requires_grad:
            weight.grad_sample = None
    return total


def opacus_ghost(learner: Learner, units: Units) -> Any:
    """Take Opacus's ghost norms, then a second backward pass of the weighted loss."""
    model: Any = learner.model
    model.zero_grad()
    losses = learner.losses(np.concatenate(units).tolist())
    losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    model.zero_grad()
    factor = model.get_clipping_coef()
    model.disable_hooks()
    (factor * losses).sum().backward()
    model.enable_hooks()
    return [weight.grad for weight in model.parameters() if weight.requires_grad]


def _ghost(model: Any) -> Any:
    return GradSampleModuleFastGradientClipping(
        model.train(), max_grad_norm=CLIP, use_ghost_clipping=True, loss_reduction="sum"
    )


ARMS = (
    Arm("non-private LoRA", plain),
    Arm("ours, flat", ours()),
    Arm("ours, automatic", ours("automatic")),
    Arm("ours, one norm a layer", ours("flat", "layer")),
    Arm("ours, 4 rows a unit", ours(), rows_per_unit=4),
    Arm("ours, activations recomputed", ours(), recompute=True),
    Arm("ours, FFA-LoRA", ours(), trainable="ffa_lora"),
    Arm(
        "Opacus hooks", opacus_hooks, wrap=lambda model: GradSampleModule(model.train(), loss_reduction="sum")
    ),
    Arm("Opacus ghost", opacus_ghost, wrap=_ghost),
    Arm("non-private LoRA, all linear layers", plain, targets=ALL_LINEAR),
    Arm("ours, all linear layers", ours(), targets=ALL_LINEAR),
    Arm("ours, FFA-LoRA, all linear layers", ours(), trainable="ffa_lora", targets=ALL_LINEAR),
    Arm(f"non-private LoRA, {KEPT} visual tokens", plain, kept=True),
    Arm(f"ours (Dual-Priv), {KEPT} visual tokens", ours(), kept=True),
)


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, nargs="+", default=[144, 576])
    options.add_argument("--batch", type=int, nargs="+", default=[8])
    options.add_argument(
        "--arms", nargs="+", default=[""], help="only arms whose names begin with one of these"
    )
    options.add_argument("--device", default="cpu")
    options.add_argument("--width", type=int, default=Size.width)
    options.add_argument("--layers", type=int, default=Size.layers)
    options.add_argument("--repeat", type=int, default=1, help="steps in a row in each reading of the clock")
    options.add_argument(
        "--pairs", type=int, default=7, help="readings beside a non-private one, for each arm"
    )
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    arms = [ARMS[0], *(arm for arm in ARMS[1:] if arm.name.startswith(tuple(given.arms)))]
    size = Size(given.width, given.layers, given.device)
    shapes = [(tokens, batch) for tokens in given.tokens for batch in given.batch]
    rows = []
    for shape in shapes:
        rows += measure(arms, *shape, size, given.pairs, given.repeat)
        write_json(given.json, rows)
    beside = {
        "about": about(given.device),
        "pairs": given.pairs,
        "repeat": given.repeat,
        "process_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    write_json(given.json.with_suffix(".about.json"), beside)
    print(f"{beside['about']}; medians and quartiles of {given.pairs} pairs, arms interleaved\n")
    print(render(rows))


def measure(
    arms: list[Arm], tokens: int, batch: int, size: Size, count: int, repeat: int
) -> list[dict[str, Any]]:
    """Return one row an arm for a batch of ``batch`` rows with ``tokens`` visual tokens."""
    frozen = frozen_model(size)
    learners = [learner_of(arm, tokens, batch, sharing_weights(frozen)) for arm in arms]
    units = [units_of(arm, batch) for arm in arms]
    use(learners[0].speed)
    peaks = [peak_bytes(arm, learner, rows) for arm, learner, rows in zip(arms, learners, units, strict=True)]
    pairs: list[list[tuple[float, float]]] = [[] for _ in arms]
    for pair in range(1, count + 1):
        for index, arm in enumerate(arms):
            plain_seconds = _seconds(arms[0], learners[0], units[0], repeat)
            pairs[index].append((_seconds(arm, learners[index], units[index], repeat), plain_seconds))
        print(f"{tokens} visual tokens, batch {batch}: {pair} of {count} pairs", file=sys.stderr, flush=True)
    found = []
    for arm, timed, peak in zip(arms, pairs, peaks, strict=True):
        found.append(
            {
                "arm": arm.name,
                "tokens": KEPT if arm.kept else tokens,
                "of_tokens": tokens,
                "batch": batch,
                "width": size.width,
                "layers": size.layers,
                "time_ratio": quartiles([own / plain for own, plain in timed]),
                "seconds": statistics.median(own for own, _ in timed),
                **peak,
                **{name.replace("above_weights", "ratio"): peak[name] / peaks[0][name] for name in peak},
            }
        )
    return found


def _seconds(arm: Arm, learner: Learner, units: Units, repeat: int) -> float:
    gc.collect()
    finished(learner.device)
    start = time.perf_counter()
    for _ in range(repeat):
        arm.step(learner, units)
    finished(learner.device)
    return (time.perf_counter() - start) / repeat


def learner_of(arm: Arm, tokens: int, batch: int, model: Any) -> Learner:
    """Return a frozen model with fresh adapters over random rows; the same weights for every arm."""
    section = trainable_section(arm.trainable, arm.rank, arm.targets)  # type: ignore[arg-type]
    adapted: Any = attach(model, section, Llava(), seed=0)
    if arm.recompute:
        recompute_activations(adapted)
    layers = TrainableLayers.of(adapted, first_axis("llava"))
    encoded = rows_of(KEPT if arm.kept else tokens, batch)
    speed = Speed(
        device=str(model.device),
        threads=0,
        micro_batch=batch,
        micro_batch_tokens=batch * (tokens + TEXT_TOKENS),
        memory_limit=None,
        recompute_activations=arm.recompute,
        processes=1,
        shard_base=False,
        checkpoint_every=1,
    )
    return Learner(arm.wrap(adapted), _Family, layers, encoded, speed)


class _Family:
    """LLaVA's losses through whatever wrapper an arm has put around the model."""

    @staticmethod
    def row_losses(model: Any, batch: Any) -> Any:
        if isinstance(model, GradSampleModule | GradSampleModuleFastGradientClipping):
            return Llava().row_losses(model._module, batch)
        return Llava().row_losses(model, batch)


def units_of(arm: Arm, batch: int) -> Units:
    """Return the rows of every unit."""
    return [np.arange(start, start + arm.rows_per_unit) for start in range(0, batch, arm.rows_per_unit)]


def peak_bytes(arm: Arm, learner: Learner, units: Units) -> dict[str, int]:
    """Return the most bytes of tensors alive at once in one step, above the weights.

    On a GPU also what torch's allocator gave out, scratch memory of kernels included.
    """
    arm.step(learner, units)
    gc.collect()
    with Allocations(learner.model) as allocations:
        arm.step(learner, units)
    found = {"bytes_above_weights": allocations.peak}
    if learner.device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        arm.step(learner, units)
        found["allocator_bytes_above_weights"] = torch.cuda.max_memory_allocated() - before
    return found


def render(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown; on a GPU with the allocator's bytes in a last column."""
    lines = [
        "| arm | visual tokens | batch | time ratio | bytes ratio | bytes above the weights |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        lines.append(
            f"| {row['arm']} | {row['tokens']} of {row['of_tokens']} | {row['batch']} | "
            f"{in_words(row['time_ratio'])} | {row['bytes_ratio']:.3f} | "
            f"{row['bytes_above_weights'] / 2**20:.0f} MiB |"
        )
    if rows and "allocator_bytes_ratio" in rows[0]:
        lines[:2] = [f"{lines[0]} milliseconds | allocator's bytes ratio |", f"{lines[1]}---|---|"]
        lines[2:] = [
            f"{line} {1000 * row['seconds']:.1f} | {row['allocator_bytes_ratio']:.3f} |"
            for line, row in zip(lines[2:], rows, strict=True)
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
