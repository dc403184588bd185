"""The side network with nothing of the backbone kept: it runs once more in the backward pass.

The gradient of Down_l is made of h_l, what a layer of the backbone returns, and of the gradient by Down_l's
output. All of the latter come from the side network alone, whose inputs are narrow. So the backward pass goes
through the side network first, and then the backbone runs again without a graph: as it passes h_l, the
gradient of Down_l is taken and h_l let go.

Shapes: R rows, L places, D width of the language model, W that of the side network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from stages.trainable.side_network import SideNetwork


@dataclass(frozen=True)
class Call:
    """How the language model was called, to call it again."""

    language: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass
class Owed:
    """The gradients by the outputs of all Down_l, first to last, and what is made of them."""

    network: SideNetwork
    gradients: list[Tensor]
    found: dict[Tensor, Tensor | None] = field(default_factory=dict)
    """Of each Down_l's weight; None where a keeper took it (stages/privacy/unit_gradients.py)."""

    def hear(self, hidden_RLD: Tensor) -> None:
        """Take the gradient of the next Down_l."""
        step = len(self.found)
        weight = self.network.down_weights()[step]
        with torch.enable_grad():
            down_RLW = self.network.down(step, hidden_RLD)
            (self.found[weight],) = torch.autograd.grad(
                down_RLW, [weight], self.gradients[step], allow_unused=True
            )


def raised_again(network: SideNetwork, call: Call, downs: Sequence[Tensor], seen: Tensor | None) -> Tensor:
    """Return what is added to the last hidden state; its backward pass runs the backbone again."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    added_RLD: Tensor = _RaisedAgain.apply(network, call, list(downs), seen, *weights)  # type: ignore[no-untyped-call]
    return added_RLD


class _RaisedAgain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, network: SideNetwork, call: Call, downs: list[Tensor], seen: Tensor | None, *weights: Tensor
    ) -> Tensor:
        ctx.network, ctx.call, ctx.downs, ctx.seen, ctx.weights = network, call, downs, seen, weights
        return network.raised(downs, seen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given_RLD: Tensor) -> tuple[Any, ...]:
        network, lower = ctx.network, set(ctx.network.down_weights())
        upper = [weight for weight in ctx.weights if weight not in lower]
        leaves = [down_RLW.detach().requires_grad_() for down_RLW in ctx.downs]
        ctx.downs = None
        with torch.enable_grad():
            added_RLD = network.raised(leaves, ctx.seen)
        found = torch.autograd.grad(added_RLD, [*leaves, *upper], given_RLD, allow_unused=True)
        del added_RLD
        owed = Owed(network, list(found[: len(leaves)]))
        of_weight: dict[Tensor, Tensor | None] = dict(zip(upper, found[len(leaves) :], strict=True))
        del leaves, found
        network.again(ctx.call, owed)
        of_weight |= owed.found
        return None, None, None, None, *(of_weight[weight] for weight in ctx.weights)
