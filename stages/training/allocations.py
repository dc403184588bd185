"""Count the bytes of tensors that a computation allocates: exact, repeatable, and without a GPU."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Follow every storage that operators return, forward and backward, until it is freed.

    Scratch memory inside an operator is not seen. Storages made before the mode was entered do not count.
    """

    def __init__(self, known: torch.nn.Module) -> None:
        """``known`` holds weights, which do not count."""
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}
        self._known = {weight.untyped_storage().data_ptr() for weight in known.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count what it returned."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage.data_ptr()
        if key in self._seen or key in self._known or not storage.nbytes():
            return
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)

        def freed(_: Any) -> None:
            self.live -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, freed)
