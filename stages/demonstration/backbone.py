"""The demonstration backbone: a small, ordinary LLaVA that `from_pretrained` loads without our code.

A CLIP tower with a class token sees 32 x 32 pixels as 64 patches; its last layer goes through LLaVA's
two-layer projector into a small Llama (Liu et al. 2023). Most weights are in the tower, which a fine-tuning
run evaluates once an image, and few in the language model, which it evaluates at every step.
"""

from dataclasses import dataclass

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from stages.demonstration.processor import END, IMAGE, PAD, START, Words

PATCH_SIZE = 4
IMAGE_SIZE = 32
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2


@dataclass(frozen=True)
class Size:
    """Widths and depths. A head is 32 wide; an MLP is ``expansion`` times as wide as its layer."""

    tower_width: int
    tower_layers: int
    language_width: int
    language_layers: int
    expansion: int


def build_backbone(size: Size, vocabulary: Words, seed: int) -> LlavaForConditionalGeneration:
    """Return a randomly initialised float32 backbone for the vocabulary: no dropout, an untied head."""
    tower = CLIPVisionConfig(
        hidden_size=size.tower_width,
        intermediate_size=size.tower_width * size.expansion,
        num_hidden_layers=size.tower_layers,
        num_attention_heads=size.tower_width // 32,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=size.language_width,
        hidden_act="gelu",
    )
    language = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=size.language_width,
        intermediate_size=size.language_width * size.expansion,
        num_hidden_layers=size.language_layers,
        num_attention_heads=size.language_width // 32,
        max_position_embeddings=256,
        pad_token_id=vocabulary.index(PAD),
        bos_token_id=vocabulary.index(START),
        eos_token_id=vocabulary.index(END),
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=language,
        image_token_index=vocabulary.index(IMAGE),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config)
