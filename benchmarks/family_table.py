"""Whose per-unit gradients are exact, on which model, whatever trains: our engine and both modes of Opacus.

``python -m benchmarks.family_table --json FILE``. Tiny random models of the real classes, in float64; one or
two rows in the batch, each a unit of its own, with 1, 2 or 4 images. A figure is how far dropping one unit
moves the clipped sum, in units of the clip C: more than 1 is a false epsilon.
"""

import argparse
import datetime
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from torch import Tensor

from benchmarks.tiny_families import FAMILIES, load_trained, write_family
from stages.core.files import write_json
from stages.privacy.clipping_rule import Clipping
from stages.privacy.trainable_layers import TrainableLayers
from stages.privacy.unit_gradients import UnitGradients
from stages.trainable.parts import Part
from stages.vlm.attribution import segments_of
from stages.vlm.synthetic import SyntheticRow, synthetic_inputs, text_losses

TRAINS: tuple[tuple[Part, ...], ...] = (("lm",), ("projector",), ("vision",), ("lm", "projector", "vision"))
IMAGES = (1, 2, 4)
EXACT = 1e-5
UNITS = (2, 1)
Method = Callable[[Any, Any, Sequence[SyntheticRow], float], tuple[Tensor, Tensor]]
"""Returns the units' norms and the clipped sum, flat, from a fresh model, its layers, rows and a clip."""


@dataclass(frozen=True)
class Verdict:
    """What a method did: its words, and how far one unit moved the sum, over the clip."""

    verdict: str
    contribution: float | None


def main() -> None:
    """Try every case, print and write the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(FAMILIES):
            path = write_family(name, Path(folder) / str(index))
            rows += [
                case(name, path, parts, units, images)
                for parts in TRAINS
                for units in UNITS
                for images in IMAGES
            ]
    write_json(given.json, rows)
    about = f"{datetime.date.today()}, torch {torch.__version__}, opacus {version('opacus')}"
    print(f"{about}\n\n{summary(rows)}\n\n{render(rows)}")


def case(name: str, path: Path, parts: tuple[Part, ...], units: int, images: int) -> dict[str, Any]:
    """Return one row of the table."""
    rows = [SyntheticRow(seed, images, 5 + seed) for seed in range(units)]
    model, layers = load_trained(path, parts)
    slow_UP = torch.stack([slow_gradient(model, layers, row) for row in rows])
    return {
        "model": name,
        "trains": list(parts),
        "units": units,
        "images": images,
        **{
            method: vars(judge(found, path, parts, rows, slow_UP))
            for method, found in (
                ("ours", ours),
                ("opacus hooks", opacus_hooks),
                ("opacus ghost", opacus_ghost),
            )
        },
    }


def slow_gradient(model: Any, layers: TrainableLayers, row: SyntheticRow) -> Tensor:
    """Return one row's gradient by autograd alone, shape (P,)."""
    loss = text_losses(model, synthetic_inputs(model.config, [row]))[0]
    parts = torch.autograd.grad(loss, list(layers.parameters().values()))
    return torch.cat([part.flatten() for part in parts])


def judge(
    method: Method, path: Path, parts: tuple[Part, ...], rows: list[SyntheticRow], slow_UP: Tensor
) -> Verdict:
    """Compare a method with the slow gradients."""
    norms_U = slow_UP.norm(dim=1)
    clip = float(norms_U.min()) / 2
    try:
        found_U, sum_P = method(*load_trained(path, parts), rows, clip)
        contributions = []
        for unit in range(len(rows)):
            others = rows[:unit] + rows[unit + 1 :]
            without_P = (
                method(*load_trained(path, parts), others, clip)[1] if others else torch.zeros_like(sum_P)
            )
            contributions.append(float((sum_P - without_P).norm()) / clip)
    except Exception as error:  # whatever a library raises is the verdict
        return Verdict(f"raises {type(error).__name__}", None)
    contribution = max(contributions)
    if found_U.shape == norms_U.shape and float((found_U - norms_U).norm()) <= EXACT * float(norms_U.norm()):
        return Verdict("exact" if contribution <= 1 + EXACT else "norms exact, sum wrong", contribution)
    return Verdict("SILENTLY WRONG", contribution)


def ours(
    model: Any, layers: TrainableLayers, rows: Sequence[SyntheticRow], clip: float
) -> tuple[Tensor, Tensor]:
    """Use this project's engine."""
    inputs = synthetic_inputs(model.config, rows)
    found = UnitGradients.of(
        layers, segments_of(model, inputs, np.arange(len(rows))), lambda: text_losses(model, inputs)
    )
    return found.norms_U(), found.clipped_sum(Clipping(clip)).sum_P


def opacus_hooks(
    model: Any, layers: TrainableLayers, rows: Sequence[SyntheticRow], clip: float
) -> tuple[Tensor, Tensor]:
    """Use Opacus's per-sample gradients, clipped as its DPOptimizer does."""
    wrapped = GradSampleModule(model.train(), loss_reduction="sum")
    text_losses(model, synthetic_inputs(model.config, rows)).sum().backward()  # type: ignore[no-untyped-call]
    samples = [weight.grad_sample for weight in layers.parameters().values()]  # type: ignore[attr-defined]
    each = [sample.reshape(len(sample), -1).norm(2, dim=-1) for sample in samples]
    norms = torch.stack(each, dim=1).norm(2, dim=1)
    factor = (clip / (norms + 1e-6)).clamp(max=1.0)
    total = [torch.einsum("i,i...->...", factor, sample).flatten() for sample in samples]
    wrapped.remove_hooks()
    return norms.detach(), torch.cat(total).detach()


def opacus_ghost(
    model: Any, layers: TrainableLayers, rows: Sequence[SyntheticRow], clip: float
) -> tuple[Tensor, Tensor]:
    """Use Opacus's ghost norms and its second backward pass of the weighted losses."""
    wrapped: Any = GradSampleModuleFastGradientClipping(
        model.train(), max_grad_norm=clip, use_ghost_clipping=True, loss_reduction="sum"
    )
    losses = text_losses(model, synthetic_inputs(model.config, rows))
    losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    norms, factor = wrapped.get_norm_sample(), wrapped.get_clipping_coef()
    wrapped.zero_grad()
    wrapped.disable_hooks()
    (factor * losses).sum().backward()
    total = [weight.grad.flatten() for weight in layers.parameters().values()]  # type: ignore[union-attr]
    wrapped.remove_hooks()
    return norms.detach(), torch.cat(total).detach()


def render(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown: a cell holds the verdicts for 1, 2 and 4 images a row."""
    lines = [
        "Each cell: 1 / 2 / 4 images a row.",
        "",
        "| model | trains | units in the batch | ours | Opacus hooks | Opacus ghost |",
        "|---" * 6 + "|",
    ]
    for start in range(0, len(rows), len(IMAGES)):
        group = rows[start : start + len(IMAGES)]
        cells = [_cell([row[method] for row in group]) for method in ("ours", "opacus hooks", "opacus ghost")]
        first = group[0]
        lines.append(
            f"| {first['model']} | {' + '.join(first['trains'])} | {first['units']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def summary(rows: list[dict[str, Any]]) -> str:
    """Return one line for each model and what trains: the worst of 1, 2 and 4 images and of 1 and 2 units."""
    lines = ["| model | trains | ours | Opacus hooks | Opacus ghost |", "|---" * 5 + "|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["model"], " + ".join(row["trains"])), []).append(row)
    for (model, trains), group in groups.items():
        cells = [
            _worst([row[method] for row in group]) for method in ("ours", "opacus hooks", "opacus ghost")
        ]
        lines.append(f"| {model} | {trains} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _worst(verdicts: list[dict[str, Any]]) -> str:
    wrong = [found["contribution"] for found in verdicts if "wrong" in found["verdict"].lower()]
    raised = sum(found["verdict"].startswith("raises") for found in verdicts)
    exact = len(verdicts) - len(wrong) - raised
    parts = [f"exact in {exact}"] if exact and exact < len(verdicts) else ["exact"] if exact else []
    parts += [f"raises in {raised}"] if raised else []
    parts += [f"**silently up to {max(wrong):.1f} C** in {len(wrong)}"] if wrong else []
    return ", ".join(parts)


def _cell(verdicts: list[dict[str, Any]]) -> str:
    words = [
        f"**{found['contribution']:.2f} C**" if "wrong" in found["verdict"].lower() else found["verdict"]
        for found in verdicts
    ]
    return words[0] if len(set(words)) == 1 else " / ".join(words)


if __name__ == "__main__":
    main()
