"""Which weights learn, in what order they lie in a flat vector, and what the layers' first axis counts.

Shapes: P trainable weights in the order of ``TrainableLayers.parameters``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ROW = "row"
"""The axis of layers that see one entry a row; families name further ones, such as images or patches."""


@dataclass(frozen=True)
class TrainableLayers:
    """The linear layers that learn, and the order of their weights in flat vectors."""

    layers: dict[str, nn.Linear]
    axes: dict[str, str]
    """What the first axis of each layer's input counts: a key of ``Segments.unit_of``."""

    @classmethod
    def of(cls, model: nn.Module, axis_of: Callable[[str], str] = lambda layer: ROW) -> "TrainableLayers":
        """Find them; refuses a trainable weight outside linear layers, and one that two layers share."""
        layers = {
            name: module
            for name, module in sorted(model.named_modules())
            if isinstance(module, nn.Linear) and any(weight.requires_grad for weight in module.parameters())
        }
        covered = {f"{name}.{leaf}" for name, layer in layers.items() for leaf, _ in layer.named_parameters()}
        trainable = {
            name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad
        }
        if not trainable:
            raise ValueError("no weight of the model is trainable: check trainable.targets")
        if trainable - covered:
            raise ValueError(
                f"{sorted(trainable - covered)[0]} is trainable but not part of a linear layer, so its "
                "per-unit norm is unknown"
            )
        weights = [
            weight for layer in layers.values() for weight in layer.parameters() if weight.requires_grad
        ]
        places = {(weight.untyped_storage()._cdata, weight.storage_offset()) for weight in weights}
        if len(places) != len(weights):
            raise ValueError(
                "two trainable layers share a weight, so per-layer norms would miss the cross term"
            )
        return cls(layers, {name: axis_of(name) for name in layers})

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name, in the order of flat vectors."""
        return {
            f"{name}.{leaf}": weight
            for name, layer in self.layers.items()
            for leaf, weight in layer.named_parameters()
            if weight.requires_grad
        }

    def slices(self) -> dict[str, slice]:
        """Return where each parameter lies in a flat vector."""
        found, start = {}, 0
        for name, weight in self.parameters().items():
            found[name] = slice(start, start + weight.numel())
            start += weight.numel()
        return found

    def flat(self) -> Tensor:
        """Return a copy of all trainable weights as one vector."""
        return torch.cat([weight.detach().flatten() for weight in self.parameters().values()])

    @torch.no_grad()
    def assign(self, flat_P: Tensor) -> None:
        """Write a flat vector back into the layers."""
        for (_, weight), where in zip(self.parameters().items(), self.slices().values(), strict=True):
            weight.copy_(flat_P[where].view_as(weight))
