"""How much arithmetic one row costs a differentially private step, by its length.

Counts multiplications of the frozen language model's linear layers, of attention and of the adapters, with
the norm of every adapter factor taken the cheaper way for that length, as the engine does (ghost norm, or the
gradient itself; methods, section 4). Embeddings, head and what grows slower than these are left out.

Shapes: T tokens of a row, d and p widths of a layer's input and output, r rank.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from stages.privacy.kept_gradients import longest_ghost


@dataclass(frozen=True)
class LinearLayer:
    """The widths of one linear layer, and whether it carries an adapter."""

    given: int
    made: int
    is_adapted: bool


@dataclass(frozen=True)
class StepWork:
    """What the arithmetic of a step is made of."""

    layers: Sequence[LinearLayer]
    attention_width: int
    """Width of attention, summed over layers."""
    rank: int

    @classmethod
    def of(cls, model: nn.Module, language_model: str, targets: Sequence[str], rank: int) -> "StepWork":
        """Read the layers off a frozen model."""
        layers, attention = [], 0
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and re.fullmatch(language_model, name):
                last = name.rsplit(".", 1)[-1]
                layers.append(LinearLayer(module.in_features, module.out_features, last in targets))
                attention += module.out_features if last == "q_proj" else 0
        return cls(layers, attention, rank)

    def multiplications(self, tokens: float) -> float:
        """Return how many a row of ``tokens`` takes: forward, backward, norms and weighted sums."""
        frozen = sum(2 * tokens * layer.given * layer.made for layer in self.layers)
        adapted = sum(self._adapter(layer, tokens) for layer in self.layers if layer.is_adapted)
        return frozen + adapted + 6 * tokens**2 * self.attention_width

    def _adapter(self, layer: LinearLayer, tokens: float) -> float:
        factors = ((layer.given, self.rank), (self.rank, layer.made))
        return sum(2 * tokens * d * p + _norm_and_sum(tokens, d, p) for d, p in factors)


def _norm_and_sum(tokens: float, given: int, made: int) -> float:
    ghost = tokens**2 * (given + made) + tokens * given * made
    instantiated = tokens * given * made + 2 * given * made
    return ghost if tokens <= longest_ghost(torch.empty(made, given, device="meta")) else instantiated
