"""What a step of each method needs on models of 2 to 8 billion weights: predicted, without a GPU or weights.

``python -m benchmarks.memory_7b --json FILE``; ``--models`` measures some, and rows of others stay in FILE.
Every figure is counted on the model's config.json by the code of ``dualpriv memory``: a whole step with its
noise and its optimizer, and LoRA of rank 16 on the attention's projections but for side network and
reversible layers. Opacus's own steps run in the same way.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule

from benchmarks.machine import about
from benchmarks.optim_section import ADAM
from benchmarks.step_cost import ATTENTION, CLIP, _ghost, opacus_ghost, opacus_hooks
from benchmarks.trainable_section import trainable_section
from stages.core.files import read_json, write_json, write_text
from stages.privacy.clipping import ClippedSum
from stages.training.gpu import GPUS
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.memory_plan import MARGIN, MOST_ROWS, MemoryPlan, Method
from stages.training.micro_batches import Units
from stages.training.synthetic_rows import Shape

GIB = 2**30
TEXT, LEARNED, KEPT = 64, 16, 64
MODELS = {
    # name: visual tokens of an unpruned row, and budgets beside the smallest
    "llava-1.5-7b": (576, (128, 192)),
    "qwen2-vl-7b": (1196, (128, 192)),
    "smolvlm2-2.2b": (1377, (128, 192)),
}
CARDS = ("a100-80gb", "h20-96gb")


@dataclass(frozen=True)
class Arm:
    """One way to take a step."""

    name: str
    kind: Any = "lora"
    estimator: Any = "gradient"
    recompute: bool = False
    reduction: int = 8
    """Of a side network."""
    opacus: str | None = None
    pruned: bool = False
    """Also on pruned rows."""


ARMS = (
    Arm("non-private LoRA", estimator="nonprivate"),
    Arm("DP-SGD, Opacus hooks", opacus="hooks"),
    Arm("DP-SGD, Opacus ghost", opacus="ghost"),
    Arm("DP-SGD", pruned=True),
    Arm("DP-SGD, activations recomputed", recompute=True, pruned=True),
    Arm("DP-SGD, side network", kind="side", pruned=True),
    Arm("DP-SGD, side network 32 x narrower", kind="side", reduction=32, pruned=True),
    Arm("the same, backbone run again", kind="side", reduction=32, recompute=True, pruned=True),
    Arm("DP-SGD, reversible", kind="reversible", pruned=True),
    Arm("zeroth order", estimator="zeroth_order", pruned=True),
)


def plan_of(model: str, arm: Arm, visual: int) -> MemoryPlan:
    """Return the steps of an arm on rows with so many visual tokens."""
    section = trainable_section(arm.kind, 16, ATTENTION)
    method = Method(
        trainable=replace(section, side=replace(section.side, reduction=arm.reduction)),
        estimator=arm.estimator,
        groups="whole",
        noise="gaussian",
        rows_per_unit=1,
        optim=ADAM,
        recompute=arm.recompute,
        keeps_tower=arm.opacus is not None,
    )
    path = Path("presets/models") / model
    plan = MemoryPlan.of(path, "bfloat16", method, Shape(TEXT, LEARNED, visual))
    return plan if arm.opacus is None else _with_opacus(plan, arm.opacus)


class _Wrapped:
    """A family whose model Opacus has wrapped."""

    def __init__(self, family: Any) -> None:
        self.family = family

    def row_losses(self, model: Any, batch: Any) -> Any:
        return self.family.row_losses(model._module, batch)


class _OpacusStep(Mechanism):
    """A step whose clipped sum is Opacus's."""

    def total(self, learner: Learner, units: Units, step: int, support: Any = None) -> ClippedSum:
        is_ghost = hasattr(learner.model, "get_clipping_coef")
        sums = opacus_ghost(learner, units) if is_ghost else opacus_hooks(learner, units)
        return ClippedSum(torch.cat([part.flatten() for part in sums]).double(), CLIP)


def _with_opacus(plan: MemoryPlan, way: str) -> MemoryPlan:
    learner = plan.memory.learner
    wrap: Callable[[Any], Any] = (
        _ghost if way == "ghost" else lambda model: GradSampleModule(model.train(), loss_reduction="sum")
    )
    model = wrap(learner.model)
    model.config = learner.model.config
    wrapped = replace(learner, model=model, family=_Wrapped(learner.family))
    mechanism = _OpacusStep(**vars(plan.memory.mechanism))
    return replace(plan, memory=replace(plan.memory, learner=wrapped, mechanism=mechanism))


def measure(model: str, batches: list[int]) -> list[dict[str, Any]]:
    """Return a row for every arm, budget and batch."""
    every, budgets = MODELS[model]
    rows = []
    for arm in ARMS:
        for visual in (every, *((KEPT, *budgets) if arm.pruned else ())):
            if arm.name != "DP-SGD" and visual in budgets:
                continue
            plan = plan_of(model, arm, visual)
            needs = {batch: plan.need(batch) for batch in batches}
            largest = {card: plan.largest(GPUS[card].limit(MARGIN)) for card in CARDS}
            print(f"{model}: {arm.name}, {visual} visual tokens", file=sys.stderr, flush=True)
            rows += [
                {
                    "model": model,
                    "method": arm.name,
                    "visual_tokens": visual,
                    "tokens": visual + TEXT,
                    "batch": batch,
                    "peak_gib": need.total / GIB,
                    "above_weights_gib": need.above_weights / GIB,
                    "dominant": need.dominant,
                    "largest": {card: found.rows if found else 0 for card, found in largest.items()},
                }
                for batch, need in needs.items()
            ]
    return rows


def render(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown, with ratios to Opacus's DP-SGD and to zeroth order on all tokens."""
    lines = [
        "| model | method | visual tokens | batch | peak GiB | above weights GiB | to Opacus ghost | "
        "to zeroth order | LoRA's above weights / its | most rows, 80 GB | 96 GB |",
        "|---" * 11 + "|",
    ]
    by = {(row["model"], row["method"], row["visual_tokens"], row["batch"]): row for row in rows}
    for row in rows:
        model, batch, every = row["model"], row["batch"], MODELS[row["model"]][0]
        opacus, zeroth = (by[model, name, every, batch] for name in ("DP-SGD, Opacus ghost", "zeroth order"))
        lora = by[model, "DP-SGD", row["visual_tokens"], batch]
        peak, above = row["peak_gib"], row["above_weights_gib"]
        lines.append(
            f"| {model} | {row['method']} | {row['visual_tokens']} of {every} | {batch} | "
            f"{peak:.2f} | {above:.2f} | {peak / opacus['peak_gib'] - 1:+.1%} | "
            f"{peak / zeroth['peak_gib'] - 1:+.1%} | {lora['above_weights_gib'] / above:.1f} x | "
            f"{row['largest'][CARDS[0]]} | {row['largest'][CARDS[1]]} |"
        )
    return "\n".join(lines)


def against_targets(rows: list[dict[str, Any]]) -> str:
    """Say which targets the models' step meets, LLaVA-1.5-7B alone."""
    model = "llava-1.5-7b"
    every = MODELS[model][0]
    by = {(row["method"], row["visual_tokens"], row["batch"]): row for row in rows if row["model"] == model}
    said = []
    for batch in sorted({batch for _, _, batch in by}):
        opacus = by["DP-SGD, Opacus ghost", every, batch]["peak_gib"]
        zeroth = by["zeroth order", every, batch]["peak_gib"]
        pruned = by["DP-SGD", KEPT, batch]["peak_gib"] / opacus - 1
        wanted = {4: -0.43, 8: -0.55}.get(batch)
        if wanted is not None:
            said.append(_verdict(f"batch {batch}: Dual-Priv to Opacus", pruned, wanted))
        for name in ("DP-SGD, activations recomputed", "DP-SGD, side network 32 x narrower"):
            found = by[name, KEPT, batch]["peak_gib"]
            same = by["zeroth order", KEPT, batch]["peak_gib"]
            text = f"batch {batch}: {name} on {KEPT} visual tokens to zeroth order on all"
            said.append(
                _verdict(text, found / zeroth - 1, 0.017) + f" ({found / same - 1:+.1%} on equal tokens)"
            )
        for name in ("DP-SGD, side network", "DP-SGD, side network 32 x narrower", "DP-SGD, reversible"):
            ratio = (
                by["DP-SGD", every, batch]["above_weights_gib"] / by[name, every, batch]["above_weights_gib"]
            )
            verdict = "met" if ratio >= 3 else "missed"
            said.append(
                f"batch {batch}: {name}, {ratio:.1f} x less above the weights than LoRA, wanted 3: {verdict}"
            )
    return "\n".join(f"- {line}" for line in said)


def _verdict(text: str, found: float, most: float) -> str:
    return f"{text}: {found:+.1%}, wanted {most:+.1%} at most: {'met' if found <= most else 'missed'}"


def main() -> None:
    """Count, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options.add_argument("--batch", type=int, nargs="+", default=[4, 8])
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    before = read_json(given.json) if given.json.is_file() else []
    rows: list[dict[str, Any]] = [row for row in before if row["model"] not in given.models]
    for model in given.models:
        rows += measure(model, given.batch)
        write_json(given.json, rows)
    words = (
        f"{about('cpu')}; bfloat16 weights, {TEXT} tokens of text, {LEARNED} of them learned; `most rows`: "
        f"with {MARGIN:.0%} of the card free, {MOST_ROWS} at most.\n\n{render(rows)}\n"
    )
    if any(row["model"] == "llava-1.5-7b" for row in rows):
        words += f"\nTargets, LLaVA-1.5-7B:\n\n{against_targets(rows)}\n"
    write_text(
        given.json.with_suffix(".md"), f"# Memory of a step on models of billions of weights\n\n{words}"
    )
    print(words)


if __name__ == "__main__":
    main()
