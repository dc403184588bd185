"""Gradients of many rows in one backward pass, one vector a row.

Trainable weights are those of linear layers. A layer's input A and output gradient G of one row give that
row's weight gradient G^T A and bias gradient sum(G), so nothing but A and G has to be kept (Goodfellow 2015;
book-keeping, Bu et al. 2023).

Shapes: R rows, T positions, d inputs and p outputs of a layer, P trainable weights in the order of
``TrainableLayers.names``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainableLayers:
    """The linear layers that learn, and the order of their weights in flat vectors."""

    layers: dict[str, nn.Linear]

    @classmethod
    def of(cls, model: nn.Module) -> "TrainableLayers":
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
        if len({weight.data_ptr() for weight in weights}) != len(weights):
            raise ValueError(
                "two trainable layers share a weight, so per-layer norms would miss the cross term"
            )
        return cls(layers)

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


def row_gradients(trainable: TrainableLayers, losses: Callable[[], Tensor]) -> Tensor:
    """Return the gradient of every row's loss, shape (R, P), from one forward and one backward pass.

    ``losses`` runs the model and returns one loss a row, shape (R,); row r's loss may depend on no other row.

    Guarantee: equals one-row-at-a-time autograd (tests/guarantees/test_gradients.py). A layer that ran twice
    or not at all, or whose first dimension is not the row, is an error and never a wrong norm.
    """
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_hook(_keep(name, inputs, outputs)) for name, layer in trainable.layers.items()
    ]
    try:
        losses_R = losses()
    finally:
        for handle in handles:
            handle.remove()
    unused = sorted(set(trainable.layers) - set(outputs))
    if unused:
        raise ValueError(
            f"{unused[0]} is trainable but took no part in the forward pass: narrow trainable.targets"
        )
    for name, output in outputs.items():
        if output.dim() != 3 or output.shape[0] != losses_R.shape[0]:
            raise ValueError(
                f"{name} saw a tensor of shape {tuple(output.shape)} for {losses_R.shape[0]} rows: its "
                "first dimension is not the row"
            )
    gradients = torch.autograd.grad(losses_R.sum(), [outputs[name] for name in trainable.layers])
    pieces = []
    for (name, layer), output_RTp in zip(trainable.layers.items(), gradients, strict=True):
        for leaf, weight in layer.named_parameters():
            if weight.requires_grad:
                pieces.append(_weight_gradient(leaf, inputs[name], output_RTp))
    return torch.cat(pieces, dim=1)


def _weight_gradient(leaf: str, input_RTd: Tensor, output_RTp: Tensor) -> Tensor:
    if leaf == "bias":
        return _wide(output_RTp).sum(dim=1)
    return torch.einsum("rtp,rtd->rpd", _wide(output_RTp), _wide(input_RTd)).flatten(1)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _keep(
    name: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if name in outputs:
            raise ValueError(
                f"{name} ran twice in one forward pass, so its per-row gradient would miss a part"
            )
        inputs[name], outputs[name] = given[0].detach(), output

    return hook
