"""Attach, count, save and load what learns, whatever kind it is.

A kind is one module beside this one and a line in each function here. Which kind a directory holds is told by
the configuration that lies in it.
"""

from pathlib import Path
from typing import Any

from torch import nn

from stages.trainable import lora, reversible, side
from stages.trainable.lora import attach_lora, load_lora, save_lora
from stages.trainable.reversible import attach_reversible, load_reversible, save_reversible
from stages.trainable.reversible_chain import chain_of
from stages.trainable.settings import Trainable
from stages.trainable.side import attach_side, load_side, save_side, side_of
from stages.vlm.families.family import Family

_FILES = ((lora.CONFIG, lora.WEIGHTS), (side.CONFIG, side.WEIGHTS), (reversible.CONFIG, reversible.WEIGHTS))


def attach(model: nn.Module, trainable: Trainable, family: Family, seed: int) -> nn.Module:
    """Return ``model`` with fresh weights that learn, all others frozen; ``seed`` is public.

    At first the output is the frozen model's, but for kind reversible.
    """
    if trainable.kind == "side":
        return attach_side(model, trainable.side, family, seed)
    if trainable.kind == "reversible":
        return attach_reversible(model, trainable.reversible, family, seed)
    return attach_lora(model, trainable, family.LANGUAGE_MODEL, seed)


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
        return
    save = save_lora if side_of(model) is None else save_side
    save(model, directory, base=base, revision=revision)


def load_adapter(model: nn.Module, directory: Path, family: Family) -> nn.Module:
    """Return ``model`` with what is stored in ``directory``; what is broken is a ValueError that names it.

    ``model`` itself may be changed: it answers as it did before only if it is loaded again.
    """
    found = adapter_files(directory)[0]
    if found == side.CONFIG:
        return load_side(model, directory, family)
    if found == reversible.CONFIG:
        return load_reversible(model, directory, family)
    return load_lora(model, directory)


def adapter_files(directory: Path) -> tuple[str, str]:
    """Return the names of configuration and weights in an adapter's directory."""
    found = [names for names in _FILES if (directory / names[0]).is_file()]
    if len(found) > 1:
        raise ValueError(f"{directory} holds more than one adapter: run `dvc repro -f finetune`")
    return found[0] if found else _FILES[0]
