"""The parts of a vision-language model that can learn, and how adapters get onto each.

The names are those of transformers' classes; a bare layer name such as ``q_proj`` would match two parts.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

Part = Literal["lm", "projector", "vision"]
_PATTERNS: dict[Part, str] = {
    "lm": r".*\b(language_model|text_model)\.layers\..*",
    "projector": r".*\b(multi_modal_projector|connector|visual\.merger)\..*",
    "vision": r".*\b(vision_tower|vision_model|visual)\b.*\b(layers|blocks)\..*",
}
_RANK, _ALPHA = 4, 8.0


def parse_parts(text: str) -> tuple[Part, ...]:
    """Read ``lm,projector,vision``."""
    found = tuple(part.strip() for part in text.split(","))
    for part in found:
        if part not in get_args(Part):
            raise ValueError(
                f"--train {text!r}: '{part}' is no part of a model; parts: {list(get_args(Part))}"
            )
    return found  # type: ignore[return-value]


def train_parts(model: Any, parts: Sequence[Part], seed: int = 0) -> Any:
    """Return the model with LoRA on the linear layers of these parts; the projector learns whole."""
    lora = [name for part in parts if part != "projector" for name in _linear(model, part)]
    projector = [name for part in parts if part == "projector" for name in _linear(model, part)]
    named = dict(model.named_modules())
    for name in projector:
        named[name].requires_grad_(True)
    if not lora:
        return model
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a deprecated name
        torch.manual_seed(seed)
        config = LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules=lora, lora_dropout=0.0)  # type: ignore[arg-type]
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=False).eval()
    for name, weight in wrapped.named_parameters():
        if any(name.endswith(f"{layer}.{leaf}") for layer in projector for leaf in ("weight", "bias")):
            weight.requires_grad_(True)  # PEFT froze them
    return wrapped


def _linear(model: Any, part: Part) -> list[str]:
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.fullmatch(_PATTERNS[part], name) and not _unused(model, name)
    ]
    if not found:
        raise ValueError(f"this model has no linear layers in its part '{part}'")
    return found


def _unused(model: Any, name: str) -> bool:
    """Tell whether a tower layer lies behind the one whose features are used (LLaVA)."""
    chosen = getattr(model.config, "vision_feature_layer", None)
    where = re.search(r"vision_tower.*\blayers\.(\d+)\.", name)
    if chosen is None or where is None:
        return False
    layers = model.config.vision_config.num_hidden_layers
    last = max(
        index if index >= 0 else layers + 1 + index
        for index in ([chosen] if isinstance(chosen, int) else chosen)
    )
    return int(where[1]) >= last
