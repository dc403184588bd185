"""Models without values: every tensor has a shape, a type and a size in bytes, and nothing in it.

A step of such a model runs the code of a real one, operator by operator, forward and backward, and what it
would allocate can be counted (allocations.py) for models that no machine here could hold. They are torch's
fake tensors. What hangs on values, such as which places of a row are visual tokens, is computed from whole
numbers, and those are real.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any


def twin(model: nn.Module) -> nn.Module:
    """Return a model that works as ``model`` does and holds no values; ``model`` stays as it is."""
    values: list[Tensor] = [*model.parameters(), *model.buffers()]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    return copy.deepcopy(model, {id(value): _fake(value, mode, value.device) for value in values})


def without_values(outline: nn.Module, device: str) -> nn.Module:
    """Turn a model on the device "meta", which only knows its shapes, into one that runs; changes it."""
    mode, made = FakeTensorMode(allow_non_fake_inputs=True), dict[int, Tensor]()
    for module in outline.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    if id(value) not in made:
                        made[id(value)] = _fake(value, mode, torch.device(device))
                    held[name] = made[id(value)]  # type: ignore[assignment]
    return outline


def holds_values(model: nn.Module) -> bool:
    """Tell whether a model is a real one."""
    return not _is_fake(next(model.parameters()))


@contextmanager
def running() -> Iterator[None]:
    """Let models without values run within, on real whole numbers."""
    with _ByShape():  # type: ignore[no-untyped-call]
        yield


class _ByShape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Look up which places a mask of real booleans chooses, so that their number is known."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator."""
        if func is torch.ops.aten.index.Tensor and tree_any(_is_fake, args):
            args = (args[0], _chosen(args[1]))
        return func(*args, **(kwargs or {}))


def _chosen(indices: list[Tensor | None]) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and index.dtype == torch.bool and not _is_fake(index)
        found += index.nonzero().unbind(dim=1) if index is not None and is_mask else [index]
    return found


def _fake(value: Tensor, mode: FakeTensorMode, device: torch.device) -> Tensor:
    empty = FakeTensor(mode, torch.empty_like(value, device="meta", requires_grad=False), device)
    if isinstance(value, nn.Parameter):
        return nn.Parameter(empty, requires_grad=value.requires_grad)
    return empty


def _is_fake(value: Any) -> bool:
    return isinstance(value, FakeTensor)
