"""Encoded images by their content, on disk: none is encoded twice, after a kill or beside a changed one.

A folder for every model, rule and code, in ``scratch/encode``: as private as the encoded set itself. Shards
are named by what they hold, so several processes may write at once.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stages.core.disk_errors import system_errors
from stages.core.files import PARTIAL, write_bytes
from stages.core.scratch import private_folder
from stages.records.features import Features
from stages.vlm.seen import Frame, KeptImage

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class _Place:
    shard: int
    start: int
    source: tuple[int, ...]
    frame: Frame


@dataclass
class ImageCache:
    """The images of one folder; features are views of memory-mapped shards."""

    folder: Path
    _shards: list[Path] = field(default_factory=list)
    _features: list[Tensor] = field(default_factory=list)
    _held: list[list[str]] = field(default_factory=list)
    """Every image that a shard's file holds, whether it is found there or in a later one."""
    _places: dict[str, _Place] = field(default_factory=dict)
    _frames: dict[Frame, Frame] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "ImageCache":
        """Return what the folder holds; a shard that is no whole one is removed.

        Whatever the operating system says (too many open files, no permission) is its error, not the shard's.
        """
        private_folder(folder)
        cache = cls(folder)
        for shard in sorted(folder.glob(f"*{_SUFFIX}")):
            try:
                cache._read(shard)
            except FileNotFoundError:
                continue  # another process has just put its images elsewhere
            except (SafetensorError, KeyError, ValueError, TypeError):
                shard.unlink(missing_ok=True)
        return cache

    def __len__(self) -> int:
        """Return the number of images here."""
        return len(self._places)

    def __contains__(self, digest: str) -> bool:
        """Tell whether an image is here."""
        return digest in self._places

    def digest(self) -> str:
        """Return what two processes compare to know that they see the same images here."""
        return hashlib.sha256("\n".join(sorted(self._places)).encode()).hexdigest()

    def add(self, digests: Sequence[str], kept: Sequence[KeptImage]) -> None:
        """Write images as one shard, whole or not at all."""
        about = [
            [digest, len(image.features_SD), image.source_S, asdict(image.frame)]
            for digest, image in zip(digests, kept, strict=True)
        ]
        name = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:32]
        flat_FD = torch.cat([image.features_SD for image in kept]).contiguous()
        path = self.folder / f"{name}{_SUFFIX}"
        with system_errors(self.folder):
            write_bytes(path, save({"features": flat_FD}, {"images": json.dumps(about)}), mode=0o600)
        self._read(path)

    def frame(self, digest: str) -> Frame:
        """Return how a row writes an image."""
        return self._places[digest].frame

    def kept(self, digest: str) -> KeptImage:
        """Return an image."""
        place = self._places[digest]
        slots = slice(place.start, place.start + len(place.source))
        return KeptImage(self._features[place.shard][slots], place.source, place.frame)

    def features(self, digests: Sequence[str]) -> Features:
        """Return the features of many images, in order, without reading them."""
        places = [self._places[digest] for digest in digests]
        return Features(
            tuple(self._features),
            np.array([place.shard for place in places], dtype=np.int64),
            np.array([place.start for place in places], dtype=np.int64),
            np.array([len(place.source) for place in places], dtype=np.int64),
        )

    def retain(self, wanted: set[str]) -> None:
        """Remove every image that is not ``wanted``: what left the records shall not stay here."""
        for shard, held in enumerate(list(self._held)):
            left = [digest for digest in held if digest in wanted and self._places[digest].shard == shard]
            if len(left) < len(held):
                if left:
                    self.add(left, [self.kept(digest) for digest in left])
                if self._shards[shard] not in self._shards[shard + 1 :]:
                    self._shards[shard].unlink(missing_ok=True)
        self._places = {digest: place for digest, place in self._places.items() if digest in wanted}

    def _read(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            flat_FD: Tensor = file.get_tensor("features")
            about: Any = json.loads(file.metadata()["images"])
        shard, start, places = len(self._shards), 0, {}
        for digest, slots, source, given in about:
            boxes = tuple(tuple(box) for box in given["boxes"])
            frame = Frame(given["text"], tuple(given["runs"]), tuple(given["grid"]), boxes)
            places[digest] = _Place(shard, start, tuple(source), self._frames.setdefault(frame, frame))
            start += slots
        if start != len(flat_FD):
            raise ValueError(f"{path} does not hold what it says")
        self._shards.append(path)
        self._features.append(flat_FD)
        self._held.append(list(places))
        self._places |= places


def digest_of(image: bytes) -> str:
    """Return the name of an image in a cache."""
    return hashlib.sha256(image).hexdigest()


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep others from removing the folder while it is used; whoever is alone removes half-written files."""
    lock = _locked(folder)
    while lock is None:
        lock = _locked(folder)
    try:
        yield
    finally:
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """Return a shared lock on the folder, or None if it was removed meanwhile."""
    private_folder(folder)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left_over in folder.glob(f".*{PARTIAL}"):
            left_over.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    fcntl.flock(handle, fcntl.LOCK_SH)
    try:
        if os.stat(folder / "lock").st_ino == os.fstat(handle).st_ino:
            return handle
    except FileNotFoundError:
        pass
    os.close(handle)
    return None


def remove_others(folder: Path) -> None:
    """Remove the sibling folders that nobody uses: other models, rules or code, and images that left."""
    for other in folder.parent.iterdir():
        if other == folder or not other.is_dir():
            continue
        try:
            handle = os.open(other / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            continue  # another process has just removed it
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(handle)
