"""What a tensor that comes into being during a training step belongs to."""

import sys
from types import CodeType

import torch
from torch import Tensor

from stages.privacy.unit_gradients import UnitGradients

STATE, ACTIVATIONS, LOGITS, BACKWARD, UNITS = (
    "optimizer, sums and noise",
    "activations",
    "logits",
    "backward pass",
    "per-unit gradients",
)
_KEEPERS: set[CodeType] = {
    function.__code__
    for function in (UnitGradients._keep, UnitGradients.squared_norms, UnitGradients.clipped_sum)
}
_DEPTH = 40
"""Frames between an operator and the keeper that called for it, at most."""


class Parts:
    """Says of every new tensor what it belongs to."""

    def __init__(self, vocabulary: int) -> None:
        """Take the vocabulary's size, by which logits and their gradients are known."""
        self.vocabulary = vocabulary
        self.is_looking = False
        """Whether a step looks at units now; before and after it is about weights alone."""

    def look(self, begins: bool) -> None:
        """Say that the look at the units begins, or that it has ended."""
        self.is_looking = begins

    def __call__(self, tensor: Tensor) -> str:
        """Return the part of a tensor that an operator is about to return."""
        if not self.is_looking:
            return STATE
        if self.vocabulary in tensor.shape:
            return LOGITS
        if _is_kept():
            return UNITS
        is_backward = torch._C._current_autograd_node() is not None
        return BACKWARD if is_backward else ACTIVATIONS


def _is_kept() -> bool:
    frame = sys._getframe(2)
    for _ in range(_DEPTH):
        if frame.f_code in _KEEPERS:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
