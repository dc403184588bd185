"""What one weight keeps of a batch until the units' clip factors are known.

Shapes: n entries of the layer's first axis, t tokens of an entry, U units, T tokens of a unit, d inputs and p
outputs of the layer, W weights of one shape, N numbers in each.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from stages.privacy.segments import Axis

_AT_ONCE = 2**22
"""Numbers of the gradients that are laid side by side."""


class KeptGradients(ABC):
    """What one weight keeps of a batch. Units own consecutive entries, so their tokens are slices."""

    def __init__(self, axis: Axis, weight: Tensor) -> None:
        """Expect runs of the layer on the entries of ``axis``."""
        self.axis, self.shape, self.device = axis, weight.shape, weight.device

    @abstractmethod
    def add(self, given: Tensor, gradient: Tensor) -> None:
        """Take one run of the layer: A of shape (n, t, d) and G of shape (n, t, p)."""

    def _by_unit(self, values: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Cut (n, t, x) into groups of units: (U, T, x) where all have as many entries, else one by one."""
        even = self.axis.even()
        if even is not None:
            units = len(self.axis.counts)
            yield slice(0, units), values.reshape(units, even * values.shape[1], values.shape[2])
            return
        start = 0
        for unit, count in enumerate(self.axis.counts):
            if count:
                yield slice(unit, unit + 1), values[start : start + count].flatten(0, 1)[None]
            start += count


class Instantiated(KeptGradients):
    """The gradient of every unit, (U, p, d)."""

    def __init__(self, axis: Axis, weight: Tensor) -> None:
        """Hold nothing yet."""
        super().__init__(axis, weight)
        self.gradients: Tensor | None = None

    def add(self, given: Tensor, gradient: Tensor) -> None:
        """Take one run of the layer."""
        parts = zip(self._by_unit(_wide(gradient)), self._by_unit(_wide(given)), strict=True)
        for (where, gradient_UTp), (_, given_UTd) in parts:
            product = torch.bmm(gradient_UTp.transpose(1, 2), given_UTd)
            if self.gradients is None:
                if product.shape[0] == len(self.axis.counts):
                    self.gradients = product
                    return
                self.gradients = product.new_zeros(len(self.axis.counts), *self.shape)
            self.gradients[where] += product

    def whole(self) -> Tensor:
        """Return the gradients, (U, p, d) or (U, p)."""
        if self.gradients is None:  # the layer ran on no entries
            return torch.zeros(len(self.axis.counts), *self.shape, device=self.device)
        return self.gradients


class Bias(Instantiated):
    """The gradient of every unit for a bias, (U, p)."""

    def add(self, given: Tensor, gradient: Tensor) -> None:
        """Take one run of the layer."""
        if self.gradients is None:
            wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
            self.gradients = gradient.new_zeros(len(self.axis.counts), *self.shape, dtype=wide)
        for where, gradient_UTp in self._by_unit(_wide(gradient)):
            self.gradients[where] += gradient_UTp.sum(dim=1)


class Ghost(KeptGradients):
    """Every unit's squared norm by inner products of tokens; A and G are kept for the sum.

    In float64, and enlarged by a bound on the rounding of the sum of inner products: the norm must bound what
    is summed even where large terms cancel.
    """

    def __init__(self, axis: Axis, weight: Tensor) -> None:
        """Hold nothing yet."""
        super().__init__(axis, weight)
        self.runs: list[tuple[Tensor, Tensor]] = []

    def add(self, given: Tensor, gradient: Tensor) -> None:
        """Take one run of the layer."""
        self.runs.append((given, gradient))

    def squared_U(self) -> Tensor:
        """Return the squared norm of every unit's gradient in float64."""
        given, gradient = self._joined()
        squared_U = given.new_zeros(len(self.axis.counts), dtype=torch.float64)
        parts = zip(self._by_unit(gradient.double()), self._by_unit(given.double()), strict=True)
        for (where, gradient_UTp), (_, given_UTd) in parts:
            alike_UTT = gradient_UTp @ gradient_UTp.transpose(1, 2)
            alike_UTT *= given_UTd @ given_UTd.transpose(1, 2)
            largest_U = (gradient_UTp.norm(dim=2) * given_UTd.norm(dim=2)).sum(dim=1).square()
            operations = 2 * (alike_UTT.shape[1] + gradient_UTp.shape[2] + given_UTd.shape[2])
            rounding_U = operations * torch.finfo(torch.float64).eps * largest_U
            squared_U[where] = alike_UTT.sum(dim=(1, 2)).clamp(min=0) + rounding_U
        return squared_U

    def sum(self, factor_U: Tensor) -> Tensor:
        """Return the weighted sum of the units' gradients in float64."""
        given, gradient = self._joined()
        counts_U = torch.tensor(self.axis.counts, device=given.device)
        factor_n = factor_U.repeat_interleave(counts_U, output_size=self.axis.entries)[:, None, None]
        weighted = (factor_n * gradient.double()).where(factor_n != 0, 0.0)
        known = given.double().where(factor_n != 0, 0.0)
        total: Tensor = weighted.flatten(0, 1).T @ known.flatten(0, 1)
        return total

    def _joined(self) -> tuple[Tensor, Tensor]:
        """Return A and G of all runs of the layer side by side: a unit's tokens are those of every run."""
        if len(self.runs) > 1:
            self.runs = [
                (torch.cat([run[0] for run in self.runs], 1), torch.cat([run[1] for run in self.runs], 1))
            ]
        return self.runs[0]


def longest_ghost(weight: Tensor) -> int:
    """Return the most tokens T of a unit for which a ghost norm needs no more room than the unit's gradient.

    It holds T (p + d) numbers until the clipped sum and 2 T^2 for a moment; the gradient has p d.
    """
    if weight.dim() < 2:
        return 0
    held, instead = sum(weight.shape), weight.numel()
    return (math.isqrt(held**2 + 8 * instead) - held) // 4


def squared_norms(kept: Mapping[str, KeptGradients]) -> dict[str, Tensor]:
    """Return for every weight the squared norm of every unit's gradient, shape (U,) in float64."""
    found = {name: piece.squared_U() for name, piece in kept.items() if isinstance(piece, Ghost)}
    for names, gradients_WUN in _by_shape(kept):
        norms_WU = torch.linalg.vector_norm(gradients_WUN, dim=2, dtype=torch.float64)
        found |= zip(names, norms_WU.square(), strict=True)
    return found


def weighted_sums(
    kept: Mapping[str, KeptGradients], factors: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield for every weight the sum of the units' gradients, each times its factor, shape (N,) in float64.

    A unit whose factor is zero adds nothing, whatever it holds.
    """
    for name, piece in kept.items():
        if isinstance(piece, Ghost):
            yield name, piece.sum(factors[name]).flatten()
    for names, gradients_WUN in _by_shape(kept):
        factors_WU = torch.stack([factors[name] for name in names])
        counted_WUN = gradients_WUN.where((factors_WU != 0)[..., None], 0.0)
        yield from zip(names, torch.bmm(factors_WU[:, None], counted_WUN.double())[:, 0], strict=True)


def _by_shape(kept: Mapping[str, KeptGradients]) -> Iterator[tuple[list[str], Tensor]]:
    """Yield the instantiated gradients, small ones of one shape side by side: a GPU does them at one call."""
    alike: dict[tuple[torch.Size, torch.dtype], dict[str, Tensor]] = {}
    for name, piece in kept.items():
        if isinstance(piece, Instantiated):
            gradients_UN = piece.whole().flatten(1)
            alike.setdefault((gradients_UN.shape, gradients_UN.dtype), {})[name] = gradients_UN
    for (shape, _), some in alike.items():
        names, at_once = list(some), max(1, _AT_ONCE // max(1, shape.numel()))
        for start in range(0, len(names), at_once):
            chosen = names[start : start + at_once]
            parts = [some[name] for name in chosen]
            yield chosen, torch.stack(parts) if len(parts) > 1 else parts[0][None]


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
