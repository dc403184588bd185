"""Learners for tests: a tiny model in float64 whose adapters are away from their start."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import load_float64, speed, trainable
from stages.core.ranks import ALONE, Ranks
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.row import Row
from stages.trainable.adapters import attach
from stages.training.learner import Learner
from stages.vlm.activations import recompute_activations
from stages.vlm.attribution import first_axis
from stages.vlm.encoder import encode_set
from stages.vlm.selection import Rule


def learner_of(
    path: Path,
    given: Sequence[Row],
    rule: Rule,
    *,
    kind: str = "lora",
    rank: int = 2,
    targets: tuple[str, ...] = ("q_proj", "down_proj"),
    prepare: Callable[[nn.Module], None] = lambda model: None,
    ranks: Ranks = ALONE,
    **speeds: Any,
) -> Learner:
    """Return a learner over ``given``; ``prepare`` is done to the model before its layers are looked up."""
    loaded = load_float64(path)
    encoded = encode_set(loaded, given, rule)
    section = trainable(kind=kind, rank=rank, targets=targets)
    settled = speed(**speeds)
    model = attach(loaded.model, section, loaded.family, seed=1).double().to(settled.device)
    prepare(model)
    if settled.recompute_activations:
        recompute_activations(model)
    layers = TrainableLayers.of(model, first_axis(model.config.model_type))
    generator = torch.Generator().manual_seed(3)
    layers.assign(0.3 * torch.randn(layers.flat().shape, generator=generator, dtype=torch.float64))
    return Learner(model, loaded.family, layers, encoded, settled, ranks)
