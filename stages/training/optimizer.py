"""Apply a privatised update to flat weights: post-processing, free of privacy cost.

Shapes: P trainable weights.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stages.training.noisy_mean import NoisyMean

_AT_ONCE = 2**22
"""Weights that are updated at once: the vectors between a gradient and an update are of so many numbers."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Section ``optim`` of params.yaml."""

    kind: Literal["adam", "adam_bc", "sgd"]
    """adam_bc: the known variance of the noise is taken out of Adam's second moment (Tang et al. 2023)."""
    learning_rate: float
    beta1: float
    beta2: float
    """Adam's second-moment decay; unused by sgd."""
    noise_floor: float
    """Least second moment that adam_bc leaves, as a share of the noise's variance."""
    schedule: Literal["constant", "cosine"]
    average: float
    """Decay of the moving average of the weights that is released in place of the last ones; 0: the last."""
    shrink: Literal["none", "spectrum"]
    """spectrum: singular values of every factor's noisy gradient are shrunk as the noise explains them."""

    def __post_init__(self) -> None:
        """Refuse rates outside their ranges."""
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"optim.learning_rate must be positive, got {self.learning_rate}")
        for name in ("beta1", "beta2", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 < self.noise_floor <= 1:
            raise ValueError(f"optim.noise_floor must lie in (0, 1], got {self.noise_floor}")

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step; cosine falls to zero after the last one."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class OptimizerState:
    """Moments, the number of updates each weight has had, and what the weights' average is made of."""

    first_P: Tensor
    second_P: Tensor
    updates_P: Tensor
    average_P: Tensor
    """Moving average of the weights that began at zero; of no weights where none is asked for."""

    @classmethod
    def zeros(cls, weights_P: Tensor, optim: Optim) -> "OptimizerState":
        """Return the state before any update."""
        average_P = torch.zeros_like(weights_P if optim.average else weights_P[:0])
        first_P, second_P, updates_P = (torch.zeros_like(weights_P) for _ in range(3))
        return cls(first_P, second_P, updates_P, average_P)

    def vectors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return all of it."""
        return self.first_P, self.second_P, self.updates_P, self.average_P

    def like(self) -> "OptimizerState":
        """Return room for another."""
        return OptimizerState(*(torch.empty_like(vector_P) for vector_P in self.vectors()))

    def part(self, where: slice) -> "OptimizerState":
        """Return that of some weights."""
        return OptimizerState(*(vector_P[where] for vector_P in self.vectors()))


def update(
    weights_P: Tensor,
    state: OptimizerState,
    noisy: NoisyMean,
    is_updated_P: Tensor,
    optim: Optim,
    learning_rate: float,
) -> tuple[Tensor, OptimizerState]:
    """Return new weights and state; where ``is_updated_P`` is False both stay untouched, moments included.

    Adam (Kingma and Ba 2015) with torch's epsilon; DP-AdamBC (Tang et al. 2023, Algorithm 1), whose second
    moment less the noise's variance is at least ``noise_floor`` times that variance; or SGD with momentum
    ``beta1`` as torch writes it.

    Guarantee: a function of privatised sums and public values alone.
    """
    if not isinstance(noisy, NoisyMean):
        raise TypeError(f"weights move by a noisy mean only, got {type(noisy).__name__}")
    after_P, new = torch.empty_like(weights_P), state.like()
    for start in range(0, len(weights_P), _AT_ONCE):
        where = slice(start, start + _AT_ONCE)
        given_P = noisy.part(where).to(state.first_P.dtype)
        after_P[where], *moved = _updated(
            weights_P[where],
            state.part(where),
            given_P,
            noisy.deviation,
            is_updated_P[where],
            optim,
            learning_rate,
        )
        for whole_P, part_P in zip(new.vectors(), moved, strict=True):
            whole_P[where] = part_P
    return after_P, new


def _updated(
    weights_P: Tensor,
    state: OptimizerState,
    gradient_P: Tensor,
    deviation: float,
    is_updated_P: Tensor,
    optim: Optim,
    learning_rate: float,
) -> tuple[Tensor, ...]:
    """Return new weights and the vectors of their state."""
    count_P = state.updates_P + 1
    if optim.kind == "sgd":
        first_P = optim.beta1 * state.first_P + gradient_P
        stepped_P, second_P = weights_P - learning_rate * first_P, state.second_P
    else:
        first_P = optim.beta1 * state.first_P + (1 - optim.beta1) * gradient_P
        second_P = optim.beta2 * state.second_P + (1 - optim.beta2) * gradient_P**2
        mean_P = first_P / (1 - optim.beta1**count_P)
        square_P = second_P / (1 - optim.beta2**count_P)
        if optim.kind == "adam_bc":
            square_P = (square_P - deviation**2).clamp(min=optim.noise_floor * deviation**2)
        stepped_P = weights_P - learning_rate * mean_P / (square_P.sqrt() + 1e-8)
    after_P = torch.where(is_updated_P, stepped_P, weights_P)
    moved = (
        torch.where(is_updated_P, first_P, state.first_P),
        torch.where(is_updated_P, second_P, state.second_P),
        torch.where(is_updated_P, count_P, state.updates_P),
    )
    if optim.average == 0:
        return after_P, *moved, state.average_P
    return after_P, *moved, optim.average * state.average_P + (1 - optim.average) * after_P


def released_weights(weights_P: Tensor, state: OptimizerState, optim: Optim, steps: int) -> Tensor:
    """Return what a run of ``steps`` steps releases: its last weights, or their unbiased moving average."""
    if optim.average == 0:
        return weights_P
    return (state.average_P / (1 - optim.average**steps)).to(weights_P.dtype)
