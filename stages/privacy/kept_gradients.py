"""What one weight keeps of a batch until the units' clip factors are known.

Shapes: n entries of the layer's first axis, t tokens of an entry, U units, T tokens of a unit, d inputs and p
outputs of the layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from stages.privacy.segments import Axis


class KeptGradients(ABC):
    """What one weight keeps of a batch. Units own consecutive entries, so their tokens are slices."""

    def __init__(self, axis: Axis, weight: Tensor) -> None:
        """Expect runs of the layer on the entries of ``axis``."""
        self.axis, self.shape, self.device = axis, weight.shape, weight.device

    @abstractmethod
    def add(self, given: Tensor, gradient: Tensor) -> None:
        """Take one run of the layer: A of shape (n, t, d) and G of shape (n, t, p)."""

    @abstractmethod
    def squared_U(self) -> Tensor:
        """Return the squared norm of every unit's gradient in float64."""

    @abstractmethod
    def sum(self, factor_U: Tensor) -> Tensor:
        """Return the sum of the units' gradients, each times its factor, in float64.

        A unit whose factor is zero adds nothing, whatever it holds.
        """

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

    def squared_U(self) -> Tensor:
        """Return the squared norm of every unit's gradient in float64."""
        flat = self._whole().flatten(1)
        norm_U: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
        return norm_U.square()

    def sum(self, factor_U: Tensor) -> Tensor:
        """Return the weighted sum of the units' gradients in float64."""
        return _weighted(factor_U, self._whole()).reshape(self.shape)

    def _whole(self) -> Tensor:
        if self.gradients is None:  # the layer ran on no entries
            return torch.zeros(len(self.axis.counts), *self.shape, device=self.device)
        return self.gradients


class Bias(Instantiated):
    """The gradient of every unit for a bias, (U, p)."""

    def add(self, given: Tensor, gradient: Tensor) -> None:
        """Take one run of the layer."""
        if self.gradients is None:
            wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
            self.gradients = torch.zeros(
                len(self.axis.counts), *self.shape, dtype=wide, device=gradient.device
            )
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
        squared_U = torch.zeros(len(self.axis.counts), dtype=torch.float64, device=given.device)
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
        counts = torch.tensor(self.axis.counts)
        factor_n = factor_U.cpu().repeat_interleave(counts).to(given.device)[:, None, None]
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


def _weighted(factor_U: Tensor, values: Tensor) -> Tensor:
    factor_U = factor_U.to(values.device)
    flat = values.flatten(1).double()
    if bool((factor_U == 0).any()):
        flat = flat.where((factor_U != 0)[:, None], 0.0)
    return factor_U @ flat


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
