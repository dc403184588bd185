"""Whole model directories of real vision-language families, tiny and with random weights.

``python -m benchmarks.tiny_directories NAME PATH`` writes one, model and processor, as ``save_pretrained``
does: what ``model.path`` of params.yaml may name. Images of 32 x 32 and of other shapes give unequal slots
where the family allows it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    GemmaConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from benchmarks.tiny_families import ROPE
from benchmarks.tiny_llavas import (
    HALF,
    TEXT,
    TOWER,
    Made,
    ids,
    llava_clip,
    llava_next,
    llava_onevision,
    llava_siglip,
    square,
)
from benchmarks.tiny_tokenizers import CHATML, GEMMA, IDEFICS, tokenizer
from stages.vlm.processors import images_only

_IDEFICS_MARKS = (
    "<|im_start|>",
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
_QWEN_MARKS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")


def _tiled(config: Any, model: Any, processor: Any, images: Any, **more: Any) -> Made:
    words = tokenizer(
        _IDEFICS_MARKS,
        end="<end_of_utterance>",
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    made = config(
        vision_config={**TOWER, "image_size": 16, "patch_size": 4},
        text_config={"model_type": "llama", "vocab_size": len(words), **ids(words), **TEXT},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    images = images(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}, do_image_splitting=True, **HALF
    )
    return model(made), processor(
        image_processor=images, tokenizer=words, image_seq_len=4, chat_template=IDEFICS, **more
    )


def _qwen(config: Any, model: Any, processor: Any, vision: dict[str, Any]) -> Made:
    words = tokenizer(_QWEN_MARKS, end="<|im_end|>", image_token="<|image_pad|>", video_token="<|video_pad|>")
    text = {**TEXT, "vocab_size": len(words), **ids(words), "rope_parameters": ROPE, "head_dim": 8}
    made = config(
        vision_config={"num_heads": 4, "depth": 3, "patch_size": 4, "spatial_merge_size": 2, **vision},
        text_config=text,
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64},
        **HALF,
    )
    made_of = {"image_processor": images, "tokenizer": words, "video_processor": None}
    return model(made), images_only(processor)(**made_of, chat_template=CHATML)


_QWEN3_VISION = {
    "hidden_size": 32,
    "out_hidden_size": 32,
    "intermediate_size": 48,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}


def _paligemma() -> Made:
    words = tokenizer([], image_token="<image>")
    images = SiglipImageProcessorPil(size=square(32), **HALF)
    images.image_seq_length = 64
    processor = PaliGemmaProcessor(image_processor=images, tokenizer=words)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**TOWER, image_size=32, patch_size=4, vision_use_head=False),
        text_config=GemmaConfig(vocab_size=len(words), head_dim=8, **ids(words), **TEXT),  # type: ignore[arg-type]
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
    )
    return PaliGemmaForConditionalGeneration(config), processor


def _gemma3() -> Made:
    words = tokenizer(
        ["<start_of_turn>", "<end_of_turn>"],
        image_token="<image_soft_token>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**TOWER, image_size=32, patch_size=4, vision_use_head=False),
        text_config={
            "vocab_size": len(words),
            "head_dim": 8,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            **ids(words),
            **TEXT,
        },
        mm_tokens_per_image=16,
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        eos_token_id=[words.eos_token_id, words.convert_tokens_to_ids("<end_of_turn>")],
    )
    images = Gemma3ImageProcessorPil(size=square(32), **HALF)
    processor = Gemma3Processor(images, words, chat_template=GEMMA, image_seq_length=16)
    return Gemma3ForConditionalGeneration(config), processor


TINY: dict[str, Callable[[], Made]] = {
    "LLaVA (CLIP)": llava_clip,
    "LLaVA (SigLIP)": llava_siglip,
    "LLaVA-NeXT": llava_next,
    "LLaVA-OneVision": llava_onevision,
    "SmolVLM": lambda: _tiled(
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        images_only(SmolVLMProcessor),
        SmolVLMImageProcessorPil,
        video_processor=None,
    ),
    "Idefics3": lambda: _tiled(
        Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, Idefics3ImageProcessorPil
    ),
    "Qwen2-VL": lambda: _qwen(
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLProcessor,
        {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
    ),
    "Qwen2.5-VL": lambda: _qwen(
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        {
            "hidden_size": 32,
            "out_hidden_size": 32,
            "intermediate_size": 48,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
    ),
    "Qwen3-VL": lambda: _qwen(
        Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, _QWEN3_VISION
    ),
    "PaliGemma": _paligemma,
    "Gemma3": _gemma3,
}


def write_directory(name: str, path: Path, seed: int = 0) -> Path:
    """Write a tiny model of a family, with weights large enough for answers to differ, and its processor."""
    torch.manual_seed(seed)
    model, processor = TINY[name]()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(0.3 * torch.randn(weight.shape))
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def main() -> None:
    """Write one."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", choices=sorted(TINY))
    options.add_argument("path", type=Path)
    given = options.parse_args()
    write_directory(given.name, given.path)


if __name__ == "__main__":
    main()
