"""A LLaVA-shaped model with random weights, and random rows for it: what speed is measured on."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from stages.records.encoded import EncodedSet
from stages.records.features import Features
from stages.records.token_rows import IGNORED, TokenRow, TokenRows

VOCABULARY, IMAGE_TOKEN, TEXT_TOKENS = 2048, 2047, 64
_HEAD, _FEATURES = 64, 64


@dataclass(frozen=True)
class Size:
    """The language model's size and where it is; by default about 25 M weights on the CPU."""

    width: int = 512
    layers: int = 7
    device: str = "cpu"


def frozen_model(size: Size) -> Any:
    """Return a model whose weights are the same for equal sizes, frozen, in evaluation mode."""
    torch.manual_seed(0)
    with torch.device(size.device):
        model: Any = LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=CLIPVisionConfig(
                    hidden_size=_FEATURES, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
                ),
                text_config=LlamaConfig(
                    vocab_size=VOCABULARY,
                    hidden_size=size.width,
                    intermediate_size=size.width * 11 // 4,
                    num_hidden_layers=size.layers,
                    num_attention_heads=size.width // _HEAD,
                    num_key_value_heads=size.width // _HEAD,
                ),
                image_token_id=IMAGE_TOKEN,
            )
        )
    return model.requires_grad_(False).eval()


def sharing_weights(model: Any) -> Any:
    """Return a model with modules of its own around the same weights."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def rows_of(tokens: int, batch: int) -> EncodedSet:
    """Return ``batch`` random rows with one image of ``tokens`` features each."""
    dice = np.random.default_rng(0)
    rows = []
    for row in range(batch):
        words = dice.integers(3, VOCABULARY - 2, TEXT_TOKENS).tolist()
        ids = (*(IMAGE_TOKEN,) * tokens, *words)
        labels = (*(IGNORED,) * (len(ids) - 16), *ids[-16:])
        rows.append(TokenRow(ids, labels, (tuple(range(len(ids))),), (row,), row, 0))
    features = torch.randn(batch, tokens, _FEATURES, generator=torch.Generator().manual_seed(0))
    return EncodedSet(Features.of(list(features)), TokenRows.of(rows), ("question",), 0, IMAGE_TOKEN, tokens)
