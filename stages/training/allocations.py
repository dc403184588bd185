"""Count the bytes of tensors that a computation allocates: exact, repeatable, and without a GPU."""

import weakref
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow every storage that operators return, forward and backward, until it is freed.

    Scratch memory inside an operator is not seen. Storages made before the mode was entered do not count; of
    a sharded model that is each process's part, and what is gathered for a layer counts while it is there.
    """

    def __init__(self, known: torch.nn.Module) -> None:
        """``known`` holds weights, which do not count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self._seen: dict[int, tuple[weakref.ref[Any], int]] = {}
        weights = list(known.parameters())
        self._emptied: list[weakref.ref[Any]] = []
        self._is_sharded = any(isinstance(weight, DTensor) for weight in weights)
        self._known = {_local(weight).untyped_storage().data_ptr() for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count what it returned."""
        result = func(*args, **(kwargs or {}))
        if self._is_sharded:
            self._notice_resizes()
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(_local(value).untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        size = storage.nbytes()
        if not size:
            return
        key = storage.data_ptr()
        if key in self._seen or key in self._known:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def freed(reference: Any) -> None:
            if key in self._seen and self._seen[key][0] is reference:
                self.live -= self._seen.pop(key)[1]

        self._seen[key] = weakref.ref(storage, freed), size

    def _notice_resizes(self) -> None:
        """Follow gathered weights, which come and go by the size of their storage."""
        filled = [storage for storage in (reference() for reference in self._emptied) if storage is not None]
        self._emptied = [weakref.ref(storage) for storage in filled if not storage.nbytes()]
        for storage in filled:
            self._count(storage)
        for key, (reference, size) in list(self._seen.items()):
            storage = reference()
            if storage is not None and storage.nbytes() != size:
                self._seen.pop(key)
                self.live -= size
                self._emptied.append(weakref.ref(storage))


def _local(tensor: Any) -> torch.Tensor:
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor
