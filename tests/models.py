"""Small models and records for tests: real transformers classes with random weights."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from stages.core.files import new_directory
from stages.core.speed import Speed
from stages.demonstration import backbone, processor, questions
from stages.records.row import Message, Row
from stages.trainable.settings import Realign, ReversibleSettings, SideSettings, Trainable
from stages.vlm.family import load
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule

SIZE = backbone.Size(tower_width=32, tower_layers=3, language_width=32, language_layers=2, expansion=2)
ALL = Rule(select="all", merge="none", layer=0, dominant=0, contextual=0)
REALIGN = Realign(records=8, steps=2, batch=4, learning_rate=0.001)
PRUNED = Rule(select="dominant_contextual", merge="cluster", layer=1, dominant=6, contextual=3)


def trainable(**changed: Any) -> Trainable:
    """Return section ``trainable``: small LoRA adapters, but for what is ``changed``."""
    small = Trainable(
        kind="lora",
        rank=2,
        alpha=4.0,
        targets=("q_proj", "down_proj"),
        side=SideSettings(reduction=4, every=1),
        reversible=ReversibleSettings(segment=4, width=4, scale=0.1, centred=True, realign=REALIGN),
    )
    return replace(small, **changed)


def write_tiny_llava(path: Path, seed: int = 0) -> Path:
    """Write a LLaVA of 32x32 pixels and 64 visual tokens with larger-than-usual random weights."""
    words = processor.complete(questions.vocabulary())
    model: LlavaForConditionalGeneration = backbone.build_backbone(SIZE, words, seed)
    model.config.text_config.max_position_embeddings = 1024  # rows of four images are longer than the default
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    with new_directory(path) as directory:
        model.save_pretrained(directory)
        processor.build_processor(words, 32, 4).save_pretrained(directory)
    return path


def picture(seed: int) -> bytes:
    """Return a noisy 32x32 PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def rows(units: int, rows_per_unit: int = 1, images_per_row: int = 1) -> list[Row]:
    """Return rows with unequal questions; rows of one unit share their images."""
    asked = ["which digit is this ?", "odd or even ?", "is it larger than five ?"]
    answers = ["seven", "odd", "yes"]
    return [
        Row(
            id=f"{unit}-{turn}",
            unit=f"unit {unit}",
            kind=("digit", "parity", "comparison")[turn % 3],
            messages=(
                Message("user", "<image>" * images_per_row + asked[turn % 3]),
                Message("assistant", answers[(unit + turn) % 3]),
            ),
            images=tuple(picture(10 * unit + image) for image in range(images_per_row)),
        )
        for unit in range(units)
        for turn in range(rows_per_unit)
    ]


def speed(**changes: Any) -> Speed:
    """Return settings for one thread on the CPU and micro-batches that hold everything."""
    settled = Speed(
        device="cpu",
        threads=1,
        micro_batch=100,
        micro_batch_tokens=100_000,
        memory_limit=None,
        recompute_activations=False,
        processes=1,
        shard_base=False,
        checkpoint_every=2,
    )
    return replace(settled, **changes)


def load_float64(path: Path) -> Loaded:
    """Load a model whose arithmetic is exact enough to be a reference."""
    loaded = load(path)
    loaded.model.double()
    return loaded
