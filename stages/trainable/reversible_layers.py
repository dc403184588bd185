"""Decoder layers in two streams whose inputs can be rebuilt from their outputs (MEFT, Liao et al. 2023).

One layer of the reversible language model, with x1 and x2 what enters it:

    y1 = lambda x1 + F(x2),    y2 = x2 + G(y1);    the next layer's x1 is y2, its x2 is y1.

F is the frozen layer with an adapter beside it, G an adapter; only adapters learn. The inverse is
x2 = y2 - G(y1), x1 = (y1 - F(x2)) / lambda. Both streams begin as the embeddings; what leaves is the stream
that the last layer wrote, so the last layer has no G (our decision: a mean would mix in the layer before).

**Centred** (our decision, ``trainable.reversible.centred``): F(x2) = layer(x2) - lambda x2 + adapter(x2).
F is still a function of x2 alone, so nothing else changes, but y1 = layer(x2) + lambda (x1 - x2): the start
is near the frozen model, and hidden states do not grow by 1 + lambda a layer.

**Wide streams**: sums are in float64 whatever the model's precision, and each layer reads its stream rounded
to its own. The error that dividing by lambda multiplies is then one of float64, and what a layer reads when
it is rebuilt rounds to the very bits that it read at first.

Shapes: R rows, L places, D width of the language model, W width of an adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

WIDE = torch.float64
"""Precision of the streams."""
Pair = tuple[Tensor, Tensor]
"""Both streams, (R, L, D) each."""


class Bottleneck(nn.Module):
    """An adapter: normalise, project down, SiLU, project up; at first it adds nothing."""

    def __init__(self, size: int, width: int, *, dtype: torch.dtype, device: torch.device) -> None:
        """Take D, W, and where the weights are."""
        super().__init__()
        self.down = nn.Linear(size, width, bias=False, dtype=dtype, device=device)
        self.up = nn.Linear(width, size, bias=False, dtype=dtype, device=device)

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Draw Down from ``generator`` on the CPU, alike on all devices; Up is zero."""
        drawn = torch.randn(self.down.weight.shape, generator=generator) / self.down.in_features**0.5
        self.down.weight.copy_(drawn)
        self.up.weight.zero_()

    def forward(self, hidden_RLD: Tensor) -> Tensor:
        """Return what is added, (R, L, D) in the precision of the weights."""
        normal_RLD = rms_norm(hidden_RLD, hidden_RLD.shape[-1:])
        added_RLD: Tensor = self.up(silu(self.down(normal_RLD)))
        return added_RLD


@dataclass(frozen=True)
class Step:
    """What one layer of the running forward pass was given."""

    arguments: Mapping[str, Any]
    """Masks, positions and so on, as the language model passes them."""
    added: Tensor | None
    """What the language model adds to the hidden states here, (R, L, D): Qwen3-VL's deepstack."""


class ReversibleLayer(nn.Module):
    """One frozen decoder layer between its adapters, in the place of the layer itself."""

    place: int
    chain: Any
    """The layers of the model, this one among them (stages/trainable/reversible_chain.py)."""

    def __init__(
        self,
        frozen: nn.Module,
        beside: Bottleneck,
        across: Bottleneck | None,
        *,
        scale: float,
        centred: bool,
    ) -> None:
        """Take the layer, the adapter beside it, G (None in the last layer), and lambda.

        lambda is rounded to float32. Its product with a number that a layer reads is exact in float64
        then; 0.1 in float64 would make a short one of every fifth, half-way between two float32 numbers too
        often.
        """
        super().__init__()
        self.frozen, self.beside, self.across = frozen, beside, across
        self.scale, self.centred = float(torch.tensor(scale, dtype=torch.float32)), centred

    def forward(self, hidden_RLD: Tensor, **arguments: Any) -> Tensor:
        """Take part in the chain's forward pass: all layers run in the call of the last one."""
        output_RLD: Tensor = self.chain.reached(self.place, hidden_RLD, arguments)
        return output_RLD

    def weights(self) -> list[nn.Parameter]:
        """Return what learns, in one order."""
        parts = [self.beside] if self.across is None else [self.beside, self.across]
        return [weight for part in parts for weight in part.parameters() if weight.requires_grad]

    def narrow(self, stream_RLD: Tensor) -> Tensor:
        """Return a stream as F and G read it: in the precision of the adapters."""
        return stream_RLD.to(self.beside.down.weight.dtype)

    def towards(self, second_RLD: Tensor, step: Step) -> Tensor:
        """Return F of the narrowed second stream."""
        precision = next(self.frozen.parameters()).dtype
        output_RLD = self.frozen(second_RLD.to(precision), **step.arguments).to(second_RLD.dtype)
        output_RLD = output_RLD + self.beside(second_RLD)
        if self.centred:
            output_RLD = torch.sub(output_RLD, second_RLD, alpha=self.scale)
        added_RLD: Tensor = output_RLD
        return added_RLD

    def onward(self, pair: Pair, step: Step) -> Pair:
        """Return the streams after this layer, already swapped for the next."""
        first, second = entering(pair, step)
        written = torch.add(self.towards(self.narrow(second), step), first, alpha=self.scale)
        other = second if self.across is None else second + self.across(self.narrow(written))
        return other, written

    def before(self, second: Tensor, written: Tensor, output: Tensor, step: Step) -> Pair:
        """Return the streams before this layer, from x2, y1 and F(x2)."""
        first = torch.sub(written, output).div_(self.scale)
        if step.added is None:
            return first, second
        return first.sub_(step.added), second - step.added


def entering(pair: Pair, step: Step) -> Pair:
    """Return the streams as a layer takes them, with what the model adds before it in both."""
    if step.added is None:
        return pair
    return pair[0] + step.added, pair[1] + step.added
