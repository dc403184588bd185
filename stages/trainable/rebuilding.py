"""The backward pass of reversible layers: walk back from the end of a segment, rebuilding as it goes.

A segment is a few layers in a row. Its forward pass keeps the pair of streams at its end and nothing else;
the next segment begins from the same pair. The backward pass rebuilds the input of one layer after the other
and runs each once more, this time with its gradient: memory is that of one layer and a pair a segment. A pair
is let go as soon as the walk back has left it.

Shapes: R rows, L places, D width of the language model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stages.trainable.reversible_layers import WIDE, Pair, ReversibleLayer, Step

Gradients = list[Tensor | None]
Given = tuple[Tensor | None, Tensor]
"""Gradients by both streams, (R, L, D) in the adapters' precision; None: none by the first."""


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
            pair = rerun.towards((rerun.across(pair), pair[1]))
            yield pair

    def gradients(self, ends: list[Pair], given: Given, is_bottom: bool) -> tuple[Given | None, Gradients]:
        """Return the gradients by the pair at the segment's start and by its weights.

        ``ends`` is taken from: its last pair is this segment's.

        Guarantee: the norms and sums of a private step come from the activations rebuilt here and from no
        others: the keepers of ``UnitGradients`` are called in this pass alone.

        ``is_bottom`` says that nothing before the segment learns: then the first is None.
        """
        found: list[Gradients] = []
        pair, (other, written) = ends.pop(), given
        for place in reversed(range(len(self.layers))):
            rerun = _Rerun(self.layers[place], self.steps[place])
            pair = rerun.across(pair), pair[1]
            own, across = (None, []) if other is None else rerun.gradients(other)
            written = written if own is None else written + own
            if is_bottom and place == 0:
                rerun.beside(pair[0])
                found.append([*rerun.gradients(written)[1], *across])
                return None, _in_order(found)
            pair = rerun.towards(pair)
            own, beside = rerun.gradients(written)
            assert own is not None
            found.append([*beside, *across])
            other, written = written * self.layers[place].scale, own if other is None else other + own
        return (other, written), _in_order(found)


class Rebuilt(torch.autograd.Function):
    """All segments as one operator, from what enters the first layer and all weights to what leaves."""

    @staticmethod
    def forward(ctx: Any, walks: Sequence[Walk], start_RLD: Tensor, *weights: Tensor) -> Tensor:
        """Run the layers without a graph."""
        wide = start_RLD.to(WIDE)
        pair, ends = (wide, wide), []
        for walk in walks:
            pair = walk.onward(pair)
            ends.append(pair)
        ctx.walks, ctx.ends = walks, ends
        return pair[1].to(start_RLD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_RLD: Tensor) -> tuple[Any, ...]:
        """Rebuild, run again, differentiate; once, for what was kept is let go on the way."""
        ends, ctx.ends = ctx.ends, None
        if ends is None:
            raise RuntimeError("reversible layers keep what one backward pass needs: run the model again")
        needs_start = ctx.needs_input_grad[1]
        given: Given | None = (None, ctx.walks[-1].layers[-1].narrow(output_RLD))
        found: list[Gradients] = []
        for place in reversed(range(len(ctx.walks))):
            assert given is not None
            given, weights = ctx.walks[place].gradients(ends, given, place == 0 and not needs_start)
            found.append(weights)
        start = None
        if given is not None:
            start = given[1] if given[0] is None else given[0] + given[1]
            start = start.to(output_RLD.dtype)
        return None, start, *_in_order(found)


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

    def towards(self, pair: Pair) -> Pair:
        """Run F on x2 and return the pair before the layer, from x2 and y1."""
        second, written = pair
        with torch.enable_grad():
            self.part, self.leaf = self.layer.beside, self.layer.narrow(second).detach().requires_grad_()
            self.output = self.layer.towards(self.leaf, self.step)
        return self.layer.before(second, written, self.output.detach(), self.step)

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
    return [weight for part in reversed(backwards) for weight in part]
