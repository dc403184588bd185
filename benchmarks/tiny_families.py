"""Tiny random models of the real vision-language classes, for tests and for the table of families."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    GemmaConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from stages.privacy.trainable_layers import TrainableLayers
from stages.trainable.parts import Part, train_parts
from stages.vlm.attribution import first_axis

VOCABULARY, IMAGE, PATCH, SIDE = 64, 60, 4, 16
TEXT = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
TOWER = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=SIDE,
    patch_size=PATCH,
)
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def _llava(vision: Any) -> Any:
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=LlamaConfig(**TEXT),
            image_token_id=IMAGE,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default" if isinstance(vision, CLIPVisionConfig) else "full",
        )
    )


def _tiled(config: Any, model: Any) -> Any:
    return model(
        config(
            vision_config=TOWER,
            text_config={"model_type": "llama", **TEXT},
            image_token_id=IMAGE,
            scale_factor=2,
        )
    )


def _paligemma() -> Any:
    return PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            vision_config=SiglipVisionConfig(**TOWER, vision_use_head=False),
            text_config=GemmaConfig(**TEXT, head_dim=8),
            image_token_id=IMAGE,
            projection_dim=32,
        )
    )


def _qwen2() -> Any:
    vision = dict(depth=2, embed_dim=32, hidden_size=32, num_heads=4, mlp_ratio=2, patch_size=PATCH)
    text = {**TEXT, "rope_parameters": ROPE}
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    )


def _qwen2_5() -> Any:
    vision = dict(
        depth=2,
        hidden_size=32,
        out_hidden_size=32,
        intermediate_size=48,
        num_heads=4,
        patch_size=PATCH,
        window_size=4 * PATCH,
        fullatt_block_indexes=[1],
    )
    text = {**TEXT, "rope_parameters": ROPE}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "LLaVA (CLIP)": lambda: _llava(CLIPVisionConfig(**TOWER)),
    "LLaVA (SigLIP)": lambda: _llava(SiglipVisionConfig(**TOWER, vision_use_head=False)),
    "SmolVLM": lambda: _tiled(SmolVLMConfig, SmolVLMForConditionalGeneration),
    "Idefics3": lambda: _tiled(Idefics3Config, Idefics3ForConditionalGeneration),
    "PaliGemma": _paligemma,
    "Qwen2-VL": _qwen2,
    "Qwen2.5-VL": _qwen2_5,
}


def write_family(name: str, path: Path) -> Path:
    """Save a tiny random model of a family with ``save_pretrained``."""
    torch.manual_seed(0)
    FAMILIES[name]().save_pretrained(path)
    return path


def load_family(path: Path, dtype: torch.dtype = torch.float64) -> Any:
    """Load it back, frozen, in evaluation mode."""
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype, local_files_only=True)
    return model.requires_grad_(False).eval()


def load_trained(
    path: Path, parts: Sequence[Part], dtype: torch.dtype = torch.float64
) -> tuple[Any, TrainableLayers]:
    """Load it with adapters on ``parts``, away from their start so that every weight has a gradient."""
    model = train_parts(load_family(path, dtype), parts)
    layers = TrainableLayers.of(model, first_axis(model.config.model_type))
    start_P = layers.flat()
    noise_P = torch.randn(start_P.shape, generator=torch.Generator().manual_seed(2)).to(start_P)
    layers.assign(start_P + 0.1 * noise_P)
    return model, layers
