"""Models on which a DP engine goes wrong, and what preflight says: a tiny LLaVA of the real classes."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tiny_families import load_trained, write_family
from stages.privacy.preflight import Subject, preflight
from stages.privacy.trainable_layers import TrainableLayers
from stages.vlm.subject import synthetic_subject

_FOLDER = tempfile.TemporaryDirectory(prefix="dualpriv-faults-")


def sound(seed: int) -> str | None:
    """Look at the model as it is, with other weights for every seed."""
    return _verdict(synthetic_subject(_model(seed)))


def weight_outside_the_norm(seed: int) -> str | None:
    """Use a factor a second time, past its layer."""
    model = _model(seed)
    layer = next(iter(TrainableLayers.of(model).layers.values()))
    subject = synthetic_subject(model)
    return _verdict(_changed(subject, lambda rows: subject.losses(rows) + layer.weight.pow(2).sum()))


def averaged_loss(seed: int) -> str | None:
    """Give every row the mean loss of its batch."""
    subject = synthetic_subject(_model(seed))

    def losses(rows: Any) -> Tensor:
        losses_R = subject.losses(rows)
        return losses_R.mean().expand_as(losses_R)

    return _verdict(_changed(subject, losses))


def dropout(seed: int) -> str | None:
    """Leave dropout in an adapter on, where PEFT's forward uses it."""
    model = _model(seed)
    adapted = next(module for module in model.modules() if hasattr(module, "lora_dropout"))
    adapted.lora_dropout["default"] = nn.Dropout(0.1)
    return _verdict(synthetic_subject(model))


def hidden_dropout(seed: int) -> str | None:
    """Drop at random in the loss itself, where no module shows it."""
    subject = synthetic_subject(_model(seed))

    def losses(rows: Any) -> Tensor:
        losses_R = subject.losses(rows)
        return losses_R * nn.functional.dropout(torch.ones_like(losses_R), 0.1)

    torch.manual_seed(seed)
    return _verdict(_changed(subject, losses))


def _changed(subject: Subject, losses: Callable[[Any], Tensor]) -> Subject:
    return replace(subject, losses=losses)


def _verdict(subject: Subject) -> str | None:
    report = preflight(subject)
    return "; ".join(report.reasons) or None


def _model(seed: int) -> Any:
    model, layers = load_trained(_written(), ("lm", "projector"))
    generator = torch.Generator().manual_seed(seed)
    start_P = layers.flat()
    layers.assign(start_P + 0.1 * torch.randn(start_P.shape, generator=generator).to(start_P))
    return model


@cache
def _written() -> Path:
    return write_family("LLaVA (CLIP)", Path(_FOLDER.name))
