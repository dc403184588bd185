"""The reversible formulas by plain autograd, and a deep language model of real layers, for tests."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu
from transformers import LlamaConfig, LlamaModel


def unreversed(chain: Any, start: Tensor, steps: list[Any]) -> Tensor:
    """Run y1 = lambda x1 + F(x2), y2 = x2 + G(y1) with an ordinary graph; no rebuilding, no segments."""

    def adapter(part: nn.Module, given: Tensor) -> Tensor:
        normal = rms_norm(given, given.shape[-1:])
        return part.up(silu(part.down(normal)))  # type: ignore[operator]

    x1 = x2 = start
    for layer, step in zip(chain.layers, steps, strict=True):
        if step.added is not None:
            x1, x2 = x1 + step.added, x2 + step.added
        frozen = layer.frozen(x2, **step.arguments)
        y1 = layer.scale * x1 + frozen + adapter(layer.beside, x2)
        if layer.centred:
            y1 = y1 - layer.scale * x2
        y2 = x2 if layer.across is None else x2 + adapter(layer.across, y1)
        x1, x2 = y2, y1
    return x2


class DeepFamily:
    """What attaching needs to know of a bare language model."""

    @staticmethod
    def language(model: Any) -> Any:
        """Return the model itself."""
        return model


def deep_llama(layers: int, *, width: int = 256, dtype: torch.dtype = torch.float32) -> Any:
    """Return Llama blocks with random weights, frozen."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model = LlamaModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=1.0 if "embed" in name else weight.shape[1] ** -0.5)
    return model.to(dtype).requires_grad_(False).eval()


def stirred(model: nn.Module, size: float = 0.3, seed: int = 3) -> nn.Module:
    """Move what learns away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_((size * noise / weight.shape[1] ** 0.5).to(weight))
    return model
