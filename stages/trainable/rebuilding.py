"""The backward pass of reversible layers: walk back from the end of a segment, rebuilding as it goes.

A segment is a few layers in a row. Its forward pass keeps the pair of streams at its end and nothing else;
the next segment begins from the same pair. The backward pass rebuilds the input of one layer after the other
and runs each once more, this time with its gradient: memory is that of one layer and a pair a segment.

Shapes: R rows, L places, D width of the language model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stages.trainable.reversible_layers import Pair, ReversibleLayer, Step

Gradients = list[Tensor | None]


@dataclass(frozen=True)
class Walk:
    """The layers of one segment and what each was given."""

    layers: Sequence[ReversibleLayer]
    steps: Sequence[Step]

    def weights(self) -> list[Tensor]:
        """Return what learns, layer after layer."""
        return [weight for layer in self.layers for weight in layer.weights()]

    def onward(self, pair: Pair) -> Pair:
        """Return the pair at the segment's end."""
        for layer, step in zip(self.layers, self.steps, strict=True):
            pair = layer.onward(pair, step)
        return pair

    def back(self, pair: Pair) -> Iterator[Pair]:
        """Yield the pair before each layer, the last layer first, as the backward pass rebuilds it."""
        for layer, step in zip(reversed(self.layers), reversed(self.steps), strict=True):
            rerun = _Rerun(layer, step)
            second = rerun.across(pair)
            pair = rerun.towards(second, pair)
            yield pair

    def gradients(self, pair: Pair, given: Pair, is_bottom: bool) -> tuple[Pair | None, Gradients]:
        """Return the gradients by the pair at the segment's start and by its weights.

        Guarantee: the norms and sums of a private step come from the activations rebuilt here and from no
        others: the keepers of ``UnitGradients`` are called in this pass alone.

        ``is_bottom`` says that nothing before the segment learns: then the first is None.
        """
        found: list[Gradients] = []
        other, written = given
        for place in reversed(range(len(self.layers))):
            rerun = _Rerun(self.layers[place], self.steps[place])
            second = rerun.across(pair)
            own, across = rerun.gradients(other)
            written = written if own is None else written + own
            if is_bottom and place == 0:
                rerun.beside(second)
                found.append([*rerun.gradients(written)[1], *across])
                return None, _in_order(found)
            pair = rerun.towards(second, pair)
            own, beside = rerun.gradients(written)
            assert own is not None
            found.append([*beside, *across])
            other, written = written * self.layers[place].scale, other + own
        return (other, written), _in_order(found)


class Segment(torch.autograd.Function):
    """A segment as one operator: takes a pair and the weights, returns the pair at the end."""

    @staticmethod
    def forward(ctx: Any, walk: Walk, first: Tensor, second: Tensor, *weights: Tensor) -> Pair:
        """Run the layers without a graph."""
        pair = walk.onward((first, second))
        ctx.walk = walk
        ctx.save_for_backward(*pair)
        return pair

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Any, ...]:
        """Rebuild, run again, differentiate."""
        pair = ctx.saved_tensors
        narrow = ctx.walk.layers[-1].narrow
        is_bottom = not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
        before, weights = ctx.walk.gradients(pair, (narrow(first), narrow(second)), is_bottom)
        return None, *(before or (None, None)), *weights


class _Rerun:
    """One layer run again with a graph, one half after the other: one is alive at a time."""

    def __init__(self, layer: ReversibleLayer, step: Step) -> None:
        self.layer, self.step = layer, step
        self.part: nn.Module | None = None
        self.leaf: Tensor | None = None
        self.output: Tensor | None = None

    def across(self, pair: Pair) -> Tensor:
        """Run G on y1 and return x2, from the pair after the layer."""
        other, written = pair
        if self.layer.across is None:
            return other
        with torch.enable_grad():
            self.part, self.leaf = self.layer.across, self.layer.narrow(written).detach().requires_grad_()
            self.output = self.layer.across(self.leaf)
        return other - self.output.detach()

    def towards(self, second: Tensor, pair: Pair) -> Pair:
        """Run F on x2 and return the pair before the layer."""
        with torch.enable_grad():
            self.part, self.leaf = self.layer.beside, self.layer.narrow(second).detach().requires_grad_()
            self.output = self.layer.towards(self.leaf, self.step)
        return self.layer.before(second, pair[1], self.output.detach(), self.step)

    def beside(self, second: Tensor) -> None:
        """Run the adapter beside the layer alone: below it nothing learns."""
        with torch.enable_grad():
            self.part, self.leaf = self.layer.beside, self.layer.narrow(second).detach()
            self.output = self.layer.beside(self.leaf)

    def gradients(self, given: Tensor) -> tuple[Tensor | None, Gradients]:
        """Return the gradients of what ran last by its input and by its weights; lets it go."""
        part, leaf, output = self.part, self.leaf, self.output
        self.part = self.leaf = self.output = None
        if part is None or leaf is None or output is None:
            return None, []
        weights = [weight for weight in part.parameters() if weight.requires_grad]
        inputs = [leaf, *weights] if leaf.requires_grad else weights
        found: Gradients = list(torch.autograd.grad(output, inputs, given, allow_unused=True))
        return (found.pop(0) if leaf.requires_grad else None), found


def _in_order(backwards: list[Gradients]) -> Gradients:
    return [weight for layer in reversed(backwards) for weight in layer]
