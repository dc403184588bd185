"""What choosing visual tokens adds to a vision tower of real size, by rule: seconds and bytes of one image.

``python -m benchmarks.encode_cost --json FILE [--device cuda] [--precision bfloat16]``: towers with random
weights (cost does not depend on them) in front of a small language model, images one by one as ``encode``
takes them, rules interleaved; ratios to the tower alone.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from benchmarks.machine import about, finished
from benchmarks.quartiles import in_words, quartiles
from stages.core.files import write_json
from stages.vlm.families.llava import Llava
from stages.vlm.seen import Frame, Prepared
from stages.vlm.selection import Rule, Select

TOWERS: dict[str, Any] = {
    "CLIP ViT-L/14, 336 pixels": CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    ),
    "SigLIP So400m/14, 384 pixels": SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    ),
}
RULES: tuple[Select, ...] = ("all", "dominant_contextual", "diverse", "reconstruct", "grid", "random")
DOMINANT, CONTEXTUAL = 54, 10
"""The published operating point: 64 tokens."""


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    options.add_argument("--device", default="cpu")
    options.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    options.add_argument("--images", type=int, default=30)
    given = options.parse_args()
    found = [
        {"tower": name, **row}
        for name, vision in TOWERS.items()
        for row in _rows(vision, given.device, getattr(torch, given.precision), given.images)
    ]
    result = {"about": f"{about(given.device)}, {given.precision}", "images": given.images, "rows": found}
    write_json(given.json, result)
    print(render(result))


def _rows(vision: Any, device: str, dtype: torch.dtype, images: int) -> list[dict[str, Any]]:
    model, prepared, patches = _model(vision, device, dtype)
    shares: dict[Select, list[float]] = {select: [] for select in RULES}
    seconds, bytes_of = [], {}
    for turn in range(images + 1):
        plain = _seconds(model, prepared, None, device)
        seconds.append(plain)
        for select in RULES:
            rule = Rule(select=select, merge="cluster", layer=12, dominant=DOMINANT, contextual=CONTEXTUAL)
            shares[select].append(_seconds(model, prepared, rule, device) / plain)
            bytes_of[select] = _peak(model, prepared, rule, device) if turn == images else 0
        print(f"{turn} of {images}", file=sys.stderr, flush=True)
    alone = {"patches": patches, "seconds": quartiles(seconds[1:])}
    return [
        {**alone, "select": select, "ratio": quartiles(shares[select][1:]), "bytes": bytes_of[select]}
        for select in RULES
    ]


def _model(vision: Any, device: str, dtype: torch.dtype) -> tuple[Any, Prepared, int]:
    text = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    has_class_token = vision.model_type == "clip_vision_model"
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default" if has_class_token else "full",
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = LlavaForConditionalGeneration(config).to(dtype).eval().requires_grad_(False)
    side = vision.image_size // vision.patch_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, vision.image_size, vision.image_size, generator=generator)
    return model, Prepared({"pixel_values": pixels}, Frame("", (side**2,))), side**2


def _seconds(model: Any, prepared: Prepared, rule: Rule | None, device: str) -> float:
    finished(device)
    start = time.perf_counter()
    seen = Llava().look(model, prepared, rule.layers() if rule else ())
    if rule:
        rule.keep(seen)
    finished(device)
    return time.perf_counter() - start


def _peak(model: Any, prepared: Prepared, rule: Rule, device: str) -> int:
    if not device.startswith("cuda"):
        return 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _seconds(model, prepared, rule, device)
    return torch.cuda.max_memory_allocated() - before


def render(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    lines = [
        f"{result['about']}; {result['images']} images one by one, {DOMINANT} + {CONTEXTUAL} tokens; ratios "
        "to the tower alone, medians and quartiles",
        "",
        "| tower | patches | alone, ms | rule | time | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['tower']} | {row['patches']} | {1000 * row['seconds']['median']:.1f} | "
            f"`{row['select']}` | {in_words(row['ratio'])} | {row['bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
