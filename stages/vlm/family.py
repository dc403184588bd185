"""Load a vision-language model from a directory and name its family.

A family is one module in ``stages/vlm/families`` and one line here.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar

from stages.vlm.families.family import Family
from stages.vlm.families.gemma import Gemma3, PaliGemma
from stages.vlm.families.llava import Llava
from stages.vlm.families.llava_next import LlavaNext
from stages.vlm.families.qwen import QwenVl
from stages.vlm.families.tiled import Tiled
from stages.vlm.loaded import Loaded
from stages.vlm.processors import load_processor

_FAMILIES: tuple[Family, ...] = (Llava(), LlavaNext(), Tiled(), QwenVl(), PaliGemma(), Gemma3())
FAMILIES: dict[str, Family] = {kind: family for family in _FAMILIES for kind in family.model_types}
"""Families by the ``model_type`` of a model's configuration."""
Precision = Literal["float32", "bfloat16"]


def family_of(path: Path, called: str | None = None) -> Family:
    """Return the family of the model in ``path``; anything unsupported is refused with what is supported.

    ``called`` is the user's name for it in a refusal, where that is not ``path``.
    """
    name = called or str(path)
    if not (path / "config.json").is_file():
        raise ValueError(f"{name} holds no config.json: model.path must be a Hugging Face model directory")
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"{name}/config.json describes no model that transformers knows: {_brief(error)}"
        ) from None
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"{name} is a model of type '{config.model_type}', which is not supported; supported: "
            f"{sorted(FAMILIES)}"
        )
    return FAMILIES[config.model_type]


def load(path: Path, *, device: str = "cpu", precision: Precision = "float32") -> Loaded:
    """Load model and processor from files alone: no hub, no remote code, safetensors only."""
    family = family_of(path)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=getattr(torch, precision),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
        processor = load_processor(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be loaded: {_brief(error)}") from None
    model.requires_grad_(False)
    return Loaded(model.to(device).eval(), processor, family)


def outline(path: Path, precision: Precision = "float32") -> Any:
    """Return the model that ``path`` describes without any values: config.json is enough."""
    family_of(path)
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, precision))  # type: ignore[no-untyped-call]
    return model.requires_grad_(False).eval()


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every stored weight, without loading any."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            shapes |= {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
    return shapes
