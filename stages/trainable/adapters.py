"""Attach, count, save and load what learns, whatever kind it is.

A kind is one module beside this one and a line in each function here.
"""

from pathlib import Path
from typing import Any

from torch import nn

from stages.trainable.lora import attach_lora, load_lora, save_lora
from stages.trainable.reversible import CONFIG as REVERSIBLE
from stages.trainable.reversible import attach_reversible, load_reversible, save_reversible
from stages.trainable.reversible_chain import chain_of
from stages.trainable.settings import Trainable
from stages.vlm.families.family import Family


def attach(model: nn.Module, trainable: Trainable, family: Family, seed: int) -> nn.Module:
    """Return ``model`` with fresh weights that learn, all others frozen; ``seed`` is public.

    At first the output is the frozen model's, but for kind reversible.
    """
    if trainable.kind in ("lora", "ffa_lora"):
        return attach_lora(model, trainable, family.LANGUAGE_MODEL, seed)
    if trainable.kind == "reversible":
        return attach_reversible(model, trainable.reversible, family, seed)
    raise ValueError(f"trainable.kind {trainable.kind} cannot be attached yet")


def count_weights(model: nn.Module, trainable: Trainable, family: Family) -> int:
    """Return how many weights would learn; ``model`` may be an outline without values, and is changed."""
    attached = attach(model, trainable, family, seed=0)
    return sum(weight.numel() for weight in attached.parameters() if weight.requires_grad)


def save_adapter(model: Any, directory: Path, *, base: str, revision: str | None) -> None:
    """Write what learned: its configuration and its weights as safetensors, nothing else.

    ``base`` is the name by which others know the backbone: a hub id, or a directory.
    """
    chain = chain_of(model)
    if chain is not None:
        save_reversible(chain, directory, base=base, revision=revision)
    else:
        save_lora(model, directory, base=base, revision=revision)


def load_adapter(model: nn.Module, directory: Path, family: Family) -> nn.Module:
    """Return ``model`` with what is stored in ``directory``; what is broken is a ValueError that names it."""
    if (directory / REVERSIBLE).is_file():
        return load_reversible(model, directory, family)
    return load_lora(model, directory)
