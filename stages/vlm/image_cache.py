"""Encoded images by their content, on disk: none is encoded twice, after a kill or beside a changed one.

A folder for every model, rule and code, in ``scratch/encode``: as private as the encoded set itself. Shards
are named by what they hold, so several processes may write at once.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
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
from stages.core.files import write_bytes
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
    _places: dict[str, _Place] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "ImageCache":
        """Return what the folder holds; a shard that cannot be read is forgotten and removed."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache = cls(folder)
        for shard in sorted(folder.glob(f"*{_SUFFIX}")):
            try:
                cache._read(shard)
            except (SafetensorError, OSError, KeyError, ValueError, TypeError):
                shard.unlink(missing_ok=True)
        return cache

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
        by_shard: dict[int, list[str]] = {}
        for digest, place in self._places.items():
            by_shard.setdefault(place.shard, []).append(digest)
        for shard, digests in by_shard.items():
            left = [digest for digest in digests if digest in wanted]
            if len(left) < len(digests):
                if left:
                    self.add(left, [self.kept(digest) for digest in left])
                self._shards[shard].unlink(missing_ok=True)
        self._places = {digest: place for digest, place in self._places.items() if digest in wanted}

    def _read(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            flat_FD: Tensor = file.get_tensor("features")
            about: Any = json.loads(file.metadata()["images"])
        shard, start, places = len(self._shards), 0, {}
        for digest, slots, source, frame in about:
            boxes = tuple(tuple(box) for box in frame["boxes"])
            runs, grid = tuple(frame["runs"]), tuple(frame["grid"])
            places[digest] = _Place(shard, start, tuple(source), Frame(frame["text"], runs, grid, boxes))
            start += slots
        if start != len(flat_FD):
            raise ValueError(f"{path} does not hold what it says")
        self._shards.append(path)
        self._features.append(flat_FD)
        self._places |= places


def digest_of(image: bytes) -> str:
    """Return the name of an image in a cache."""
    return hashlib.sha256(image).hexdigest()


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep others from removing the folder while it is used."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def remove_others(folder: Path) -> None:
    """Remove the sibling folders that nobody uses: other models, rules or code, and images that left."""
    for other in _siblings(folder):
        handle = os.open(other / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(handle)


def _siblings(folder: Path) -> Iterable[Path]:
    return [other for other in folder.parent.iterdir() if other.is_dir() and other != folder]
