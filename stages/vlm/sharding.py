"""Keep a part of the frozen base in each process (FSDP2); the weights that learn stay whole in all."""

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from stages.core.ranks import Ranks
from stages.vlm.families.family import unwrapped


def shard_base(model: nn.Module, device: str, ranks: Ranks) -> None:
    """Shard the frozen weights of every transformer layer over all processes; move the rest to ``device``.

    A layer's weights are gathered for its forward and its backward pass and let go again, so every process
    has to run the model equally often. Adapters, embeddings, projector and head stay whole.

    Guarantee: losses and gradients are those of the unsharded model up to rounding.
    """
    shard_layers(model, device, ranks)
    model.to(device)


def shard_layers(model: nn.Module, device: str, ranks: Ranks) -> None:
    """Shard the frozen weights of every transformer layer where they are, which may be nowhere."""
    if ranks.world > 1:
        mesh = init_device_mesh(torch.device(device).type, (ranks.world,))
        whole = {
            weight for name, weight in model.named_parameters() if weight.requires_grad or ".lora_" in name
        }
        for layer in list(unwrapped(model).modules()):
            if isinstance(layer, GradientCheckpointingLayer) and set(layer.parameters()) - whole:
                fully_shard(
                    layer,
                    mesh=mesh,
                    reshard_after_forward=True,  # each is a root of its own, which would keep its weights
                    ignored_params=whole & set(layer.parameters()),
                )
