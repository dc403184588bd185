"""Trade time for memory: forget a layer's activations and recompute them in the backward pass."""

from typing import Any

from peft import PeftModel
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_activations(model: nn.Module) -> None:
    """Make every transformer layer of ``model`` keep its input alone (Chen et al. 2016).

    Guarantee: losses and per-unit gradients are those of the model without it. All else stays in evaluation
    mode, so nothing drops at random: transformers asks only the layer itself whether it is training.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    base.activation_checkpointing_enable()
    for module in base.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
