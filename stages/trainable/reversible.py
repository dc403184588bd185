"""Reversible adapters of the language model: attach, save and load (DP-MemArc, Liu et al. 2024)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.core.disk_errors import system_errors
from stages.core.files import read_json, write_json
from stages.trainable.reversible_chain import Chain, chain_of
from stages.trainable.reversible_layers import Bottleneck, ReversibleLayer
from stages.trainable.settings import ReversibleForm
from stages.trainable.stored import read_weights
from stages.vlm.families.family import Family

CONFIG, WEIGHTS = "reversible_config.json", "reversible_model.safetensors"


def attach_reversible(model: nn.Module, settings: ReversibleForm, family: Family, seed: int) -> nn.Module:
    """Put every decoder layer of ``model`` between adapters, all that learns; ``seed`` is public.

    The start is not the frozen model but near it (``trainable.reversible.centred``), and is brought nearer on
    public records before anything private is seen (stages/training/realignment.py).
    """
    language = family.language(model)
    size, generator = int(language.config.hidden_size), torch.Generator().manual_seed(seed)
    chain = Chain([], settings.segment)
    for place, frozen in enumerate(language.layers):
        weight = next(frozen.parameters())
        where: dict[str, Any] = {
            "dtype": torch.promote_types(weight.dtype, torch.float32),
            "device": weight.device,
        }
        beside = Bottleneck(size, settings.width, **where)
        is_last = place + 1 == len(language.layers)
        across = None if is_last else Bottleneck(size, settings.width, **where)
        for part in (beside, across):
            if part is not None and not weight.is_meta:
                part.start(generator)
        chain.layers.append(
            ReversibleLayer(frozen, beside, across, scale=settings.scale, centred=settings.centred)
        )
    for place, layer in enumerate(chain.layers):
        layer.place, layer.chain, language.layers[place] = place, chain, layer
    return model.eval()


def save_reversible(chain: Chain, directory: Path, *, base: str, revision: str | None) -> None:
    """Write ``reversible_config.json`` and ``reversible_model.safetensors``, nothing else."""
    layer = chain.layers[0]
    weights = {name: weight.detach().cpu().contiguous() for name, weight in _weights(chain).items()}
    with system_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        save_file(weights, directory / WEIGHTS)
    write_json(
        directory / CONFIG,
        {
            "kind": "reversible",
            "base": base,
            "revision": revision,
            "segment": chain.segment,
            "width": layer.beside.down.out_features,
            "scale": layer.scale,
            "centred": layer.centred,
            "deviation": chain.deviation,
            "language_model": {"width": layer.beside.down.in_features, "layers": len(chain.layers)},
        },
    )


def load_reversible(model: nn.Module, directory: Path, family: Family) -> nn.Module:
    """Return ``model`` between stored adapters; what is broken or another model's is a ValueError."""
    said = read_json(directory / CONFIG)
    language = family.language(model)
    shape = {"width": int(language.config.hidden_size), "layers": len(language.layers)}
    if said.get("language_model") != shape:
        raise ValueError(
            f"{directory} belongs to another model: its adapters are of {said.get('language_model')}, and "
            f"this language model is of {shape}"
        )
    settings = _settings(directory, said)
    attached = attach_reversible(model, settings, family, seed=0)
    chain = chain_of(attached)
    assert chain is not None
    chain.deviation = said.get("deviation")
    expected = _weights(chain)
    stored = read_weights(directory / WEIGHTS, expected)
    with torch.no_grad():
        for name, weight in expected.items():
            weight.copy_(stored[name])
    return attached.requires_grad_(False)


def _settings(directory: Path, said: Mapping[str, Any]) -> ReversibleForm:
    try:
        return ReversibleForm(
            segment=int(said["segment"]),
            width=int(said["width"]),
            scale=float(said["scale"]),
            centred=bool(said["centred"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{directory / CONFIG} is not the settings of reversible adapters: {error}"
        ) from None


def _weights(chain: Chain) -> dict[str, Tensor]:
    return {
        f"layers.{place}.{name}": weight
        for place, layer in enumerate(chain.layers)
        for name, weight in layer.named_parameters()
        if not name.startswith("frozen.")
    }
