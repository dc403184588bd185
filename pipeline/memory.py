"""The command ``dualpriv memory``: what a training step would need, without a GPU and without weights."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.presets import Rows, merge, read_preset
from stages.core.params import read_params, read_section

GIB = 2**30
DEFAULT_GPU = "a100-80gb"
_WIDTH = 120
"""Columns of the table where it goes to a file."""
_TEXT, _ANSWER = 64, 16
"""Tokens of a row's text, and of these the answer's, where nothing is said of them."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says; None leaves it to the preset or to params.yaml."""

    preset: str | None
    model: Path | None
    gpu: str | None
    gpus: int | None
    visual_tokens: int | None
    text_tokens: int | None
    answer_tokens: int | None
    batch: int
    margin: float | None
    every_method: bool


def memory_command(asked: Asked, *, as_json: bool) -> int:
    """Print the prediction; returns 0 when a step of the first method fits, else 1."""
    found = prediction(asked)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    return 0 if found["methods"][0]["largest"] is not None else 1


def prediction(asked: Asked) -> dict[str, Any]:
    """Return what is predicted, as one JSON document; sizes in GiB."""
    from stages.training.gpu import gpu_of
    from stages.training.memory_methods import MemorySettings, methods_of
    from stages.training.memory_plan import MARGIN, MemoryPlan, as_many
    from stages.training.synthetic_rows import Shape

    preset = read_preset(asked.preset) if asked.preset is not None else None
    params = read_params()
    if preset is not None:
        merge(params, preset.params, f"preset '{asked.preset}'")
    settings = MemorySettings.of(params)
    path = directory_of(asked.model or (preset.config if preset else settings.model.path))
    gpu = gpu_of(asked.gpu or (preset.gpu if preset else DEFAULT_GPU))
    gpus = asked.gpus if asked.gpus is not None else preset.gpus if preset else 1
    if asked.batch < 1 or gpus < 1:
        raise ValueError(f"--batch and --gpus count from 1, got {asked.batch} and {gpus}")
    if settings.trainable.kind == "reversible" and gpus > 1:
        raise ValueError(
            "trainable.kind reversible works on one GPU, for its base is not sharded: ask for --gpus 1, or "
            "set another trainable.kind"
        )
    rows = rows_of(asked, preset.rows if preset else None, params, path)
    recompute = read_section(params, "speed.recompute_activations", bool)
    margin = MARGIN if asked.margin is None else asked.margin
    limit, methods = gpu.limit(margin), []
    for name, method in methods_of(settings, gpus, recompute, asked.every_method).items():
        print(f"memory: {name}", file=sys.stderr, flush=True)
        with as_many(gpus):
            plan = MemoryPlan.of(
                path,
                settings.model.precision,
                method,
                Shape(rows.text_tokens, rows.answer_tokens, rows.visual_tokens),
            )
            methods.append({"name": name, **_said(plan, asked.batch, limit)})
    return {
        "model": str(path),
        "gpu": asdict(gpu),
        "gpus": gpus,
        "margin": margin,
        "rows": asdict(rows),
        "methods": methods,
    }


def directory_of(model: Path) -> Path:
    """Return the directory of a config.json, which may itself be named."""
    if model.name == "config.json" and model.is_file():
        return model.parent
    if not model.is_dir():
        raise ValueError(f"{model} is no model: name a Hugging Face directory, or its config.json alone")
    return model


def rows_of(asked: Asked, preset: Rows | None, params: dict[str, Any], path: Path) -> Rows:
    """Return what a long row is made of, as the command line, a preset or params.yaml say."""
    text = asked.text_tokens or (preset.text_tokens if preset else _TEXT)
    answer = asked.answer_tokens or (preset.answer_tokens if preset else _ANSWER)
    visual = asked.visual_tokens
    if visual is None:
        visual = preset.visual_tokens if preset else _kept(params, path)
    if visual < 0 or not 0 < answer < text:
        raise ValueError(
            f"a row of {visual} visual tokens and {text} of text, {answer} of them the answer's, cannot be: "
            "the text is the question's and the answer's"
        )
    return Rows(visual_tokens=visual, text_tokens=text, answer_tokens=answer)


def _kept(params: dict[str, Any], path: Path) -> int:
    """Return the visual tokens of an image: all, or the largest budget that calibrate may choose."""
    if read_section(params, "tokens.select", str) != "all":
        return max(map(sum, read_section(params, "calibrate.candidates", tuple[tuple[int, int], ...])))
    from stages.vlm.family import family_of, outline

    slots = family_of(path).slots_per_image(outline(path))
    if slots is None:
        raise ValueError(f"how many visual tokens {path} sees hangs on the image: say --visual-tokens")
    return slots


def _said(plan: Any, batch: int, limit: int) -> dict[str, Any]:
    from stages.training.memory_plan import MOST_ROWS

    need, largest = plan.need(batch), plan.largest(limit)
    return {
        "batch": batch,
        "peak_gib": need.total / GIB,
        "above_weights_gib": need.above_weights / GIB,
        "parts_gib": {part: size / GIB for part, size in need.parts.items()},
        "dominant": need.dominant,
        "largest": largest
        and {
            "rows": largest.rows,
            "tokens": largest.rows * plan.tokens_of_row,
            "peak_gib": largest.total / GIB,
            "no_more_were_tried": largest.rows >= MOST_ROWS,
        },
    }


def _words(largest: dict[str, Any]) -> tuple[str, str, str]:
    more = " or more" if largest["no_more_were_tried"] else ""
    return f"{largest['rows']}{more}", f"{largest['tokens']}{more}", f"{largest['peak_gib']:.1f}"


def _show(found: dict[str, Any]) -> None:
    rows, gpu = found["rows"], found["gpu"]
    print(
        f"{found['model']}: rows of {rows['visual_tokens']} visual tokens and {rows['text_tokens']} of text "
        f"({rows['answer_tokens']} learned); {found['gpus']} x {gpu['name']} with {gpu['memory_gib']:g} GiB, "
        f"of which {found['margin']:.0%} stay free"
    )
    batch = found["methods"][0]["batch"]
    table = Table("method", f"GiB, {batch} rows", "above weights", "mostly", "most rows", "tokens", "GiB")
    for method in found["methods"]:
        largest = method["largest"]
        table.add_row(
            method["name"],
            f"{method['peak_gib']:.2f}",
            f"{method['above_weights_gib']:.2f}",
            method["dominant"],
            *(_words(largest) if largest else ()),
        )
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)
    if found["methods"][0]["largest"] is None:
        print(
            "not one unit fits: keep fewer visual tokens, set speed.recompute_activations, take a lower "
            "estimator.rows_per_unit, or more GPUs with speed.shard_base"
        )
