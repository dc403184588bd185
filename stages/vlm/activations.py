"""Trade time for memory: forget a layer's activations and recompute them in the backward pass."""

import re

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from stages.trainable.side import side_of
from stages.trainable.side_block import SideBlock
from stages.vlm.families.family import unwrapped

_LANGUAGE_MODEL = re.compile(r"\b(language_model|text_model)\b")


def recompute_activations(model: nn.Module, backbone: bool = True) -> None:
    """Make every transformer layer of ``model`` but the last keep its input alone (Chen et al. 2016).

    The language model's last layer keeps its activations: its backward pass comes first, when they would be
    recomputed at once, so forgetting them costs time and saves nothing. Beside a side network that goes for
    its blocks instead: the language model has no backward pass there. ``backbone``: what its layers return is
    not kept for the side network either, and it runs again.

    Guarantee: losses and per-unit gradients are those of the model without it. All else stays in evaluation
    mode, so nothing drops at random: transformers asks only the layer itself whether it is training.
    """
    base = unwrapped(model)
    base.activation_checkpointing_enable()
    base.disable_input_require_grads()  # layers run again without that, which costs gradients of all below
    named = dict(base.named_modules())
    network = side_of(model)
    if network is not None:
        network.forgets = backbone
    forgetful = GradientCheckpointingLayer if network is None else SideBlock
    layers = {name: module for name, module in named.items() if isinstance(module, forgetful)}
    last = [name for name in layers if _LANGUAGE_MODEL.search(name)][-1:]
    for name, layer in layers.items():
        layer.training = name not in last
