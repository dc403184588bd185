"""Apply a privatised update to flat weights: post-processing, free of privacy cost.

Shapes: P trainable weights.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Section ``optim`` of params.yaml."""

    kind: Literal["adam", "sgd"]
    learning_rate: float
    beta1: float
    beta2: float
    """Adam's second-moment decay; unused by sgd."""
    schedule: Literal["constant", "cosine"]

    def __post_init__(self) -> None:
        """Refuse rates outside their ranges."""
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"optim.learning_rate must be positive, got {self.learning_rate}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(
                f"optim.beta1 and optim.beta2 must lie in [0, 1), got {self.beta1} and {self.beta2}"
            )

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step; cosine falls to zero after the last one."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class OptimizerState:
    """Moments and the number of updates each weight has had."""

    first_P: Tensor
    second_P: Tensor
    updates_P: Tensor

    @classmethod
    def zeros(cls, weights_P: Tensor) -> "OptimizerState":
        """Return the state before any update."""
        return cls(torch.zeros_like(weights_P), torch.zeros_like(weights_P), torch.zeros_like(weights_P))


def update(
    weights_P: Tensor,
    state: OptimizerState,
    gradient_P: Tensor,
    is_updated_P: Tensor,
    optim: Optim,
    learning_rate: float,
) -> tuple[Tensor, OptimizerState]:
    """Return new weights and state; where ``is_updated_P`` is False both stay untouched, moments included.

    Adam (Kingma and Ba 2015) with torch's epsilon, or SGD with momentum ``beta1`` as torch writes it.
    """
    if optim.kind == "sgd":
        first_P = optim.beta1 * state.first_P + gradient_P
        stepped_P = weights_P - learning_rate * first_P
        moved = OptimizerState(first_P, state.second_P, state.updates_P + 1)
    else:
        count_P = state.updates_P + 1
        first_P = optim.beta1 * state.first_P + (1 - optim.beta1) * gradient_P
        second_P = optim.beta2 * state.second_P + (1 - optim.beta2) * gradient_P**2
        mean_P = first_P / (1 - optim.beta1**count_P)
        deviation_P = (second_P / (1 - optim.beta2**count_P)).sqrt() + 1e-8
        stepped_P = weights_P - learning_rate * mean_P / deviation_P
        moved = OptimizerState(first_P, second_P, count_P)
    return torch.where(is_updated_P, stepped_P, weights_P), OptimizerState(
        torch.where(is_updated_P, moved.first_P, state.first_P),
        torch.where(is_updated_P, moved.second_P, state.second_P),
        torch.where(is_updated_P, moved.updates_P, state.updates_P),
    )
