"""Attach a side network to a language model, in place, store it and load it again."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from stages.core.disk_errors import system_errors
from stages.core.files import read_json, write_json
from stages.trainable.settings import SideSettings
from stages.trainable.side_network import SideNetwork, SideShape
from stages.trainable.stored import read_weights
from stages.vlm.families.family import Family, unwrapped

CONFIG, WEIGHTS = "side_config.json", "side_model.safetensors"
_VERSION = 1


def attach_side(model: nn.Module, settings: SideSettings, family: Family, seed: int) -> nn.Module:
    """Give the language model of ``model`` a side network, in place; it alone learns.

    ``seed`` is public. Guarantee: at first every output equals the frozen model's, bit for bit.
    """
    return _beside(model, SideShape.beside(family.language(model), settings), family, seed)


def side_of(model: nn.Module) -> SideNetwork | None:
    """Return the side network of a model, if it has one."""
    return next((module for module in model.modules() if isinstance(module, SideNetwork)), None)


def save_side(model: nn.Module, directory: Path, *, base: str, revision: str | None) -> None:
    """Write what the side network is beside and how it is shaped, and its weights as safetensors."""
    network = side_of(model)
    if network is None:
        raise TypeError(f"only a model with a side network has one to save, got {type(model).__name__}")
    about = {"version": _VERSION, "kind": "side", "base": base, "revision": revision}
    write_json(directory / CONFIG, about | asdict(network.shape))
    with system_errors(directory):
        save_file(
            {name: weight.detach().cpu().contiguous() for name, weight in network.state_dict().items()},
            directory / WEIGHTS,
        )


def load_side(model: nn.Module, directory: Path, family: Family) -> nn.Module:
    """Return ``model`` with a stored side network, in place; what does not fit is a ValueError that says so.

    Guarantee: a model that a stored network is refused for is left as it was.
    """
    said, language = _read_config(directory / CONFIG), family.language(model)
    shape = SideShape.beside(language, SideSettings(reduction=said["reduction"], every=said["every"]))
    for name, here in (("width", shape.width), ("layers", shape.layers)):
        if said[name] != here:
            raise ValueError(
                f"{directory} stands beside '{said['base']}', whose language model has {name} {said[name]}; "
                f"this one has {here}"
            )
    with torch.device("meta"):
        expected = SideNetwork(shape).state_dict()
    stored = read_weights(directory / WEIGHTS, expected)
    loaded = _beside(model, shape, family, seed=0)
    language.side.load_state_dict(stored)
    return loaded


def _beside(model: nn.Module, shape: SideShape, family: Family, seed: int) -> nn.Module:
    if side_of(model) is not None:
        raise ValueError("this model has a side network already: load the backbone anew")
    language = family.language(model)
    like = next(language.parameters())
    with torch.random.fork_rng(), torch.device("meta" if like.is_meta else "cpu"):
        torch.manual_seed(seed)
        network = SideNetwork(shape)
    model.requires_grad_(False)
    language.side = network.to(like.device, torch.promote_types(like.dtype, torch.float32)).eval()
    network.listen(unwrapped(model).model, language)
    return model


def _read_config(path: Path) -> dict[str, Any]:
    said = read_json(path)
    whole = ("width", "layers", "reduction", "every")
    if (
        not isinstance(said, dict)
        or said.get("kind") != "side"
        or said.get("version") != _VERSION
        or not isinstance(said.get("base"), str)
        or not all(type(said.get(name)) is int and said[name] > 0 for name in whole)
    ):
        raise ValueError(f"{path} does not describe a side network of version {_VERSION}")
    return said
