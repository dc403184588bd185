"""Tiny models and processors of the LLaVA families, and the sizes that all tiny families share."""

from typing import Any

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from benchmarks.tiny_tokenizers import LLAVA, tokenizer
from stages.vlm.processors import images_only

TEXT = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
)
TOWER = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
HALF = dict(image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
_PINPOINTS = [[16, 32], [32, 16], [32, 32]]
Made = tuple[Any, Any]
"""A model and its processor."""


def square(side: int) -> dict[str, int]:
    """Return the size of a square as image processors take it."""
    return {"height": side, "width": side}


def ids(words: Any) -> dict[str, int]:
    """Return the marks of a tokenizer as configurations take them."""
    return {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": 0}


def _llama(words: Any) -> LlamaConfig:
    return LlamaConfig(vocab_size=len(words), **ids(words), **TEXT)  # type: ignore[arg-type]


def _llava(vision: Any, images: Any, strategy: str) -> Made:
    words = tokenizer(["<image>"])
    config = LlavaConfig(
        vision_config=vision,
        text_config=_llama(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy=strategy,
    )
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=words,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(strategy == "default"),
        chat_template=LLAVA,
    )
    return LlavaForConditionalGeneration(config), processor


def llava_clip() -> Made:
    """Return LLaVA with a class token."""
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square(32), **HALF)
    return _llava(CLIPVisionConfig(**TOWER, image_size=32, patch_size=4), images, "default")


def llava_siglip() -> Made:
    """Return LLaVA without a class token."""
    images = SiglipImageProcessorPil(size=square(32), **HALF)
    vision = SiglipVisionConfig(**TOWER, image_size=32, patch_size=4, vision_use_head=False)
    return _llava(vision, images, "full")


def llava_next() -> Made:
    """Return LLaVA-NeXT with tiles of 16 pixels."""
    words = tokenizer(["<image>"])
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**TOWER, image_size=16, patch_size=4),
        text_config=_llama(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=_PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 16}, crop_size=square(16), image_grid_pinpoints=_PINPOINTS, **HALF
        ),
        tokenizer=words,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    return LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> Made:
    """Return LLaVA-OneVision with tiles of 16 pixels that are shrunk where there are many."""
    words = tokenizer(["<image>", "<video>"])
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**TOWER, image_size=16, patch_size=4, vision_use_head=False),
        text_config=Qwen2Config(vocab_size=len(words), **ids(words), **TEXT),  # type: ignore[arg-type]
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=_PINPOINTS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
    )
    processor = images_only(LlavaOnevisionProcessor)(
        image_processor=LlavaOnevisionImageProcessorPil(
            size=square(16), image_grid_pinpoints=_PINPOINTS, **HALF
        ),
        tokenizer=words,
        video_processor=None,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
        chat_template=LLAVA,
    )
    return LlavaOnevisionForConditionalGeneration(config), processor
