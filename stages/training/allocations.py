"""Count the bytes of tensors that a computation allocates: exact, repeatable, and without a GPU."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GATHERED = "gathered weights"
"""The part of a sharded model's weights that a layer has gathered from all processes."""


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow every storage that operators return, forward and backward, until it is freed.

    Tensors without values (stages/training/fake_tensors.py) count like others; scratch memory inside an
    operator is not seen. Storages made before the mode was entered do not count; of a sharded model that is
    each process's part, and what is gathered for a layer counts while it is there.
    """

    def __init__(
        self, known: torch.nn.Module, part_of: Callable[[torch.Tensor], str] = lambda tensor: ""
    ) -> None:
        """``known`` holds weights, which do not count; ``part_of`` says what a new tensor belongs to."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self.parts: dict[str, int] = {}
        """Bytes alive of each part."""
        self.parts_at_peak: dict[str, int] = {}
        self._part_of = part_of
        self._seen: dict[int, tuple[weakref.ref[Any], int, str]] = {}
        self._before: dict[int, weakref.ref[Any]] = {}
        weights = list(known.parameters())
        self._emptied: list[weakref.ref[Any]] = []
        self._is_sharded = any(isinstance(weight, DTensor) for weight in weights)
        self._known = {storage_of(weight)._cdata for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count what it returned, but for what it was given."""
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor):
                self._take_as_known(storage_of(value))
        result = func(*args, **(kwargs or {}))
        if self._is_sharded:
            self._notice_resizes()
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(storage_of(value), value)
        return result

    def _take_as_known(self, storage: Any) -> None:
        """Leave out a storage that was there before the mode was entered, as long as it is there."""
        key = storage._cdata
        if key not in self._seen and key not in self._known and storage.nbytes():

            def freed(reference: Any) -> None:
                if self._before.get(key) is reference:
                    del self._before[key]

            self._before.setdefault(key, weakref.ref(storage, freed))

    def _count(self, storage: Any, tensor: torch.Tensor | None = None) -> None:
        size = storage.nbytes()
        if not size:
            return
        key = storage._cdata
        if key in self._seen or key in self._known or key in self._before:
            return
        part = GATHERED if tensor is None else self._part_of(tensor)
        self._add(size, part)
        if self.live > self.peak:
            self.peak, self.parts_at_peak = self.live, dict(self.parts)

        def freed(reference: Any) -> None:
            if key in self._seen and self._seen[key][0] is reference:
                self._seen.pop(key)
                self._add(-size, part)

        self._seen[key] = weakref.ref(storage, freed), size, part

    def _add(self, size: int, part: str) -> None:
        self.live += size
        self.parts[part] = self.parts.get(part, 0) + size

    def _notice_resizes(self) -> None:
        """Follow gathered weights, which come and go by the size of their storage."""
        filled = [storage for storage in (reference() for reference in self._emptied) if storage is not None]
        self._emptied = [weakref.ref(storage) for storage in filled if not storage.nbytes()]
        for storage in filled:
            self._count(storage)
        for key, (reference, size, part) in list(self._seen.items()):
            storage = reference()
            if storage is not None and storage.nbytes() != size:
                self._seen.pop(key)
                self._add(-size, part)
                self._emptied.append(weakref.ref(storage))


def storage_of(tensor: Any) -> Any:
    """Return the storage of a tensor, of a sharded one that of this process's part."""
    return (tensor._local_tensor if isinstance(tensor, DTensor) else tensor).untyped_storage()
