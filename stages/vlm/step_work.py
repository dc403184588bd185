"""How much arithmetic one row costs a differentially private step, by its length.

Counts multiplications of the language model's linear layers, of attention and of what learns, with the norm
of every matrix that learns taken the cheaper way for that length, as the engine does (ghost norm, or the
gradient itself; methods, section 4). Beside a side network the language model runs forward only; reversible
layers run forward twice. Embeddings, head and what grows slower than these are left out.

Shapes: T tokens of a row, d and p widths of a layer's input and output.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stages.privacy.kept_gradients import longest_ghost
from stages.privacy.plan import EstimatorKind
from stages.trainable.settings import Trainable
from stages.trainable.side_network import SideNetwork, SideShape
from stages.vlm.families.family import Family


@dataclass(frozen=True)
class LinearLayer:
    """The widths of one linear layer, and how a step uses it."""

    given: int
    made: int
    passes: int
    """1: forward; 2: backward as well, to its input; 3: forward again in between."""
    learns: bool


@dataclass(frozen=True)
class StepWork:
    """What the arithmetic of a step is made of."""

    layers: Sequence[LinearLayer]
    attention: int
    """Multiplications for each pair of tokens."""

    @classmethod
    def of(
        cls, model: nn.Module, family: Family, trainable: Trainable, estimator: EstimatorKind = "gradient"
    ) -> "StepWork":
        """Read the layers off a frozen model, and add what would learn; of zeroth order, one forward pass."""
        found = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and re.fullmatch(family.LANGUAGE_MODEL, name)
        }
        width = sum(layer.out_features for name, layer in found.items() if name.endswith(".q_proj"))
        if estimator == "zeroth_order":
            widths = [(layer.in_features, layer.out_features) for layer in found.values()]
            return cls([LinearLayer(given, made, 1, False) for given, made in widths], 2 * width)
        if trainable.kind == "side":
            shape = SideShape.beside(family.language(model), trainable.side)
            frozen = [
                LinearLayer(layer.in_features, layer.out_features, 1, False) for layer in found.values()
            ]
            beside = 6 * shape.narrow * len(shape.tapped())
            return cls([*frozen, *_side_layers(shape)], 2 * width + beside)
        if trainable.kind == "reversible":
            rerun = [LinearLayer(layer.in_features, layer.out_features, 3, False) for layer in found.values()]
            return cls([*rerun, *_bottlenecks(family.language(model), trainable)], 8 * width)
        layers = []
        for name, layer in found.items():
            given, made, rank = layer.in_features, layer.out_features, trainable.rank
            layers.append(LinearLayer(given, made, 2, False))
            if name.rpartition(".")[2] in trainable.targets:
                layers += [LinearLayer(given, rank, 2, True), LinearLayer(rank, made, 2, True)]
        return cls(layers, 6 * width)

    def multiplications(self, tokens: float) -> float:
        """Return how many a row of ``tokens`` takes: forward, backward, norms and weighted sums."""
        linear = sum(layer.passes * tokens * layer.given * layer.made for layer in self.layers)
        learned = sum(_norm_and_sum(tokens, layer.given, layer.made) for layer in self.layers if layer.learns)
        return linear + learned + tokens**2 * self.attention


def _side_layers(shape: SideShape) -> list[LinearLayer]:
    """Return the layers of a side network; nothing goes back through those that read the language model."""
    with torch.device("meta"):
        network = SideNetwork(shape)
    return [
        LinearLayer(layer.in_features, layer.out_features, 1 if name.startswith("downs.") else 2, True)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and not name.startswith("gates.")
    ]


def _bottlenecks(language: Any, trainable: Trainable) -> list[LinearLayer]:
    """Return the adapters of reversible layers, two a layer but the last one's second."""
    size, width = int(language.config.hidden_size), trainable.reversible.width
    pair = [LinearLayer(size, width, 3, True), LinearLayer(width, size, 3, True)]
    return pair * (2 * len(language.layers) - 1)


def _norm_and_sum(tokens: float, given: int, made: int) -> float:
    ghost = tokens**2 * (given + made) + tokens * given * made
    instantiated = tokens * given * made + 2 * given * made
    return ghost if tokens <= longest_ghost(torch.empty(made, given, device="meta")) else instantiated
