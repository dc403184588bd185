"""Gradients of many units in one backward pass: exact norms and clipped sums.

Trainable weights are those of linear layers. While a batch runs, each such layer's forward is an autograd
function whose backward hands its input A and output gradient G to a keeper, which forms what the clipped sum
needs and lets A and G go (book-keeping, Bu et al. 2023): the gradient of each unit, or, where that needs more
room than A and G, the ghost norm (Goodfellow 2015; Li et al. 2022). Recomputation by activation checkpointing
passes through the same function, so it needs nothing special.

Shapes: U units, T tokens of a unit in a layer, d inputs and p outputs of the layer, P trainable weights.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stages.privacy.clipping import ClippedSum, clip_factors
from stages.privacy.clipping_rule import Clipping
from stages.privacy.kept_gradients import (
    Bias,
    Ghost,
    Instantiated,
    KeptGradients,
    longest_ghost,
    squared_norms,
    weighted_sums,
)
from stages.privacy.segments import Axis, Segments
from stages.privacy.trainable_layers import TrainableLayers

Norms = Literal["choose", "instantiate", "ghost"]
"""How a weight's norm is found; ``choose`` takes the ghost norm where 2 T^2 + T (p + d) <= p d."""


class UnitGradients:
    """What one batch of units did to every trainable weight, before clipping."""

    def __init__(
        self,
        trainable: TrainableLayers,
        segments: Segments,
        norms: Norms = "choose",
        support: frozenset[str] | None = None,
    ) -> None:
        """Expect one backward pass; weights outside ``support`` have no gradient here, None: all have."""
        self.trainable, self.segments, self.norms, self.support = trainable, segments, norms, support
        self._kept: dict[str, KeptGradients] = {}

    @classmethod
    def of(
        cls,
        trainable: TrainableLayers,
        segments: Segments,
        losses: Callable[[], Tensor],
        *,
        norms: Norms = "choose",
        support: frozenset[str] | None = None,
    ) -> "UnitGradients":
        """Run ``losses`` (one loss a row, each a function of its own row alone) forward and backward.

        Guarantee: the mean over each unit's rows equals one-unit-at-a-time autograd
        (tests/guarantees/test_gradients.py), zero outside ``support`` before any norm is taken. A layer that
        took no part, whose first axis has another length than the batch says, or whose weight is reached by
        another way than through the layer, is an error.
        """
        found = cls(trainable, segments, norms, support)
        with found._watching():
            losses_R = losses()
            rows = segments.axes["row"].entries
            if losses_R.shape != (rows,):
                raise ValueError("the model's losses are not one a row")
            if losses_R.requires_grad:  # not so where only image parts learn and no row has an image
                (losses_R * segments.row_weights(losses_R)).sum().backward()  # type: ignore[no-untyped-call]
        found._require_whole()
        return found

    def squared_norms(self) -> dict[str, Tensor]:
        """Return each layer's squared gradient norm of every unit, shape (U,) in float64, on the device.

        Layers without a weight in the support are left out: they have no share of the clip.
        """
        found: dict[str, Tensor] = {}
        for name, squared_U in squared_norms(self._kept).items():
            layer = name.rpartition(".")[0]
            found[layer] = found[layer] + squared_U if layer in found else squared_U
        zeros_U = torch.zeros(self.segments.units, dtype=torch.float64, device=self._device)
        return {layer: found.get(layer, zeros_U) for layer in self._layers()}

    def norms_U(self) -> Tensor:
        """Return the norm of every unit's gradient over all weights, shape (U,) in float64, on the CPU."""
        return torch.stack(list(self.squared_norms().values())).sum(dim=0).sqrt().cpu()

    def clipped_sum(self, clipping: Clipping) -> ClippedSum:
        """Clip every unit and add them.

        Guarantee: adding or removing one unit moves the sum by at most ``clipping.clip`` in L2 norm, up to
        rounding in float64, whatever the unit holds.

        Edge cases: a unit with NaN or infinity in any weight adds nothing at all.
        """
        factors = clip_factors(self.squared_norms(), clipping)
        return ClippedSum(self._sum(factors), clipping.clip)

    def stacked(self) -> Tensor:
        """Return every unit's gradient, shape (U, P) on the CPU, for inspection: memory U x P."""
        eye = torch.eye(self.segments.units, dtype=torch.float64, device=self._device)
        return torch.stack([self._sum(dict.fromkeys(self._layers(), unit)).cpu() for unit in eye])

    def _sum(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the units' gradients, each layer's times its factors (U,), shape (P,)."""
        slices = self.trainable.slices()
        weights = list(self.trainable.parameters().values())
        total_P = weights[0].new_zeros(sum(weight.numel() for weight in weights), dtype=torch.float64)
        of_weight = {name: factors[name.rpartition(".")[0]] for name in self._kept}
        for name, sum_N in weighted_sums(self._kept, of_weight):
            total_P[slices[name]] = sum_N
        return total_P

    def _layers(self) -> list[str]:
        held = {name.rpartition(".")[0] for name in self.trainable.parameters() if self._is_in(name)}
        return [layer for layer in self.trainable.layers if layer in held]

    def _is_in(self, name: str) -> bool:
        return self.support is None or name in self.support

    @property
    def _device(self) -> torch.device:
        return next(iter(self.trainable.parameters().values())).device

    @contextmanager
    def _watching(self) -> Iterator[None]:
        for name, layer in self.trainable.layers.items():
            layer.forward = partial(self._forward, name, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self.trainable.layers.values():
                del layer.forward  # the instance's; the class's is back

    def _forward(self, name: str, layer: nn.Linear, given: Tensor) -> Tensor:
        axis = self.segments.axis(self.trainable.axes[name], name)
        if given.dim() < 2 or given.shape[0] != axis.entries:
            raise ValueError(
                f"{name} saw a tensor that has not one entry for each '{self.trainable.axes[name]}' of the "
                "batch: its first dimension is something else"
            )
        keep = partial(self._keep, name, layer, axis)
        output: Tensor = _Watched.apply(given, layer.weight, layer.bias, keep)  # type: ignore[no-untyped-call]
        return output

    def _keep(self, name: str, layer: nn.Linear, axis: Axis, given: Tensor, gradient: Tensor) -> None:
        """Take a layer's input A and output gradient G; called once for every run of the layer."""
        gradient = gradient.flatten(1, -2) if gradient.dim() > 2 else gradient[:, None]
        given = given.flatten(1, -2) if given.dim() > 2 else given[:, None]
        for leaf, weight in (("weight", layer.weight), ("bias", layer.bias)):
            if weight is not None and weight.requires_grad and self._is_in(f"{name}.{leaf}"):
                known = self._kept.get(f"{name}.{leaf}")
                if known is None:
                    known = self._kept[f"{name}.{leaf}"] = self._keeper(leaf, axis, given, weight)
                known.add(given.detach(), gradient)

    def _keeper(self, leaf: str, axis: Axis, given: Tensor, weight: Tensor) -> KeptGradients:
        if leaf == "bias":
            return Bias(axis, weight)
        tokens = axis.most() * given.shape[1]
        ghost = self.norms == "ghost" or (self.norms == "choose" and tokens <= longest_ghost(weight))
        return Ghost(axis, weight) if ghost else Instantiated(axis, weight)

    def _require_whole(self) -> None:
        for name, weight in self.trainable.parameters().items():
            if weight.grad is not None:
                weight.grad = None
                raise ValueError(
                    f"{name} is reached by the gradient outside its layer's forward, where no norm sees it"
                )
            layer = name.rpartition(".")[0]
            axis = self.segments.axis(self.trainable.axes[layer], layer)
            if axis.entries and name not in self._kept and self._is_in(name):
                raise ValueError(
                    f"{layer} is trainable but took no part in the loss: narrow trainable.targets"
                )


class _Watched(torch.autograd.Function):
    """``linear``, whose weight gradient goes to a keeper and not into ``.grad``."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor | None, keep: Any) -> Tensor:
        ctx.save_for_backward(
            given if weight.requires_grad else given.new_zeros(given.shape[:-1] + (0,)), weight
        )
        ctx.keep = keep
        return nn.functional.linear(given, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        given, weight = ctx.saved_tensors
        (gradient,) = gradients
        ctx.keep(given, gradient)
        return (gradient @ weight if ctx.needs_input_grad[0] else None), None, None, None
