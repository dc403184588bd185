"""The reversible layers of one language model: how they take the place of its layers, and what they run.

Shapes: R rows, L places, D width of the language model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stages.trainable.rebuilding import Rebuilt, Walk
from stages.trainable.reversible_layers import WIDE, ReversibleLayer, Step


@dataclass
class Chain:
    """The reversible layers of one language model, which all run in the call of the last one.

    transformers calls one layer after the other with masks and positions of its own. Every layer but the last
    notes what it was given and hands on zeros, so that what arrives at the next is what the model added
    between them, to the bit: nothing, or the visual features of Qwen3-VL. Not for two threads at once.
    """

    layers: list[ReversibleLayer]
    segment: int
    frozen_alone: bool = False
    """Run the frozen model, as if there were no adapters."""
    errors: list[float] | None = None
    """Where rebuilt errors are asked for: one a segment of every forward pass."""
    deviation: dict[str, float] | None = None
    """How far the start was from the frozen model, before and after realignment; public."""
    start: Tensor | None = field(default=None, repr=False)
    handed_on: Tensor | None = field(default=None, repr=False)
    steps: list[Step] = field(default_factory=list, repr=False)

    def reached(self, place: int, hidden_RLD: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        """Take what layer ``place`` was called with; the last one's output is the language model's."""
        if self.frozen_alone:
            output_RLD: Tensor = self.layers[place].frozen(hidden_RLD, **arguments)
            return output_RLD
        if place == 0:
            self.start, self.steps = hidden_RLD, []
        is_new = place > 0 and hidden_RLD is not self.handed_on
        self.steps.append(Step(arguments, hidden_RLD if is_new else None))
        if place + 1 < len(self.layers):
            self.handed_on = hidden_RLD.new_zeros(()).expand(hidden_RLD.shape)
            return self.handed_on
        start, steps = self.start, self.steps
        self.start, self.handed_on, self.steps = None, None, []
        assert start is not None and len(steps) == len(self.layers)
        return self._run(start, steps)

    def _run(self, start_RLD: Tensor, steps: list[Step]) -> Tensor:
        learns = torch.is_grad_enabled() and any(layer.weights() for layer in self.layers)
        if learns and any(step.arguments.get("past_key_values") is not None for step in steps):
            raise ValueError(
                "reversible layers run twice where they learn, and a cache would take in every token twice: "
                "call the model with use_cache=False, or under torch.no_grad()"
            )
        begins = range(0, len(self.layers), self.segment)
        walks = [
            Walk(self.layers[begin : begin + self.segment], steps[begin : begin + self.segment])
            for begin in begins
        ]
        if self.errors is not None:
            self.errors += rebuilt_errors(walks, start_RLD.detach())
        if learns:
            weights = [weight for walk in walks for weight in walk.weights()]
            output_RLD: Tensor = Rebuilt.apply(walks, start_RLD, *weights)  # type: ignore[no-untyped-call]
            return output_RLD
        wide = start_RLD.to(WIDE)
        pair = wide, wide
        for walk in walks:
            pair = walk.onward(pair)
        return pair[1].to(start_RLD.dtype)


@torch.no_grad()
def rebuilt_errors(walks: Sequence[Walk], start_RLD: Tensor) -> list[float]:
    """Return for each segment the largest relative error of a stream rebuilt before any of its layers."""
    wide = start_RLD.to(WIDE)
    pair, errors = (wide, wide), []
    for walk in walks:
        before = []
        for layer, step in zip(walk.layers, walk.steps, strict=True):
            before.append(pair)
            pair = layer.onward(pair, step)
        worst = 0.0
        for expected, found in zip(reversed(before), walk.back(pair), strict=True):
            for stream, rebuilt in zip(expected, found, strict=True):
                error = float((rebuilt - stream).norm() / stream.norm())
                worst = max(worst, error if math.isfinite(error) else math.inf)
        errors.append(worst)
    return errors


def chain_of(model: nn.Module) -> Chain | None:
    """Return the reversible layers of a model; None where it has none."""
    found = (module.chain for module in model.modules() if isinstance(module, ReversibleLayer))
    return next(found, None)


@contextmanager
def without_adapters(chain: Chain) -> Iterator[None]:
    """Let the model be the frozen one for a while."""
    chain.frozen_alone = True
    try:
        yield
    finally:
        chain.frozen_alone = False


@contextmanager
def measured(chain: Chain) -> Iterator[list[float]]:
    """Measure the rebuilt error of every segment of the forward passes within."""
    chain.errors = []
    try:
        yield chain.errors
    finally:
        chain.errors = None
