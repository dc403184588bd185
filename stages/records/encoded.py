"""Encoded record sets: pruned visual features and token rows, as safetensors.

A folder holds ``rows.safetensors`` (token rows, cut from flat arrays by offsets),
``features-NNNNN.safetensors`` shards and, for private records, a ``salt`` that keeps the folder's digest
from being guessed.

Shapes: R rows, L tokens of the longest row of a batch, I images, S kept visual slots an image, D encoder
width, U units.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.core.disk_errors import system_errors
from stages.core.files import new_directory
from stages.records.owner import write_owner

IGNORED = -100
IMAGES_PER_SHARD = 4096


@dataclass(frozen=True)
class TokenRow:
    """One row as the language model reads it: slots pruned, positions of the unpruned sequence."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """The token to predict *at* each place (not shifted), IGNORED where nothing is learned."""
    position_ids: tuple[int, ...]
    images: tuple[int, ...]
    """Indices into the set's features, in the order of the row's slots."""
    unit: int
    kind: int


@dataclass(frozen=True)
class EncodedSet:
    """All rows and features of one split, in memory."""

    features_ISD: Tensor
    rows: tuple[TokenRow, ...]
    kinds: tuple[str, ...]
    pad_token_id: int
    image_token_id: int

    def __post_init__(self) -> None:
        """Refuse a row that has not as many slots as features.

        transformers checks only a batch's total, and an off-by-one there would let a row see another's image.
        """
        slots = self.features_ISD.shape[1]
        if any(row.input_ids.count(self.image_token_id) != slots * len(row.images) for row in self.rows):
            raise ValueError("an encoded row has not as many slots as features: run `dvc repro -f encode`")

    def rows_by_unit(self) -> list[NDArray[np.int64]]:
        """Return, for each unit index, the indices of its rows."""
        found: dict[int, list[int]] = {}
        for index, row in enumerate(self.rows):
            found.setdefault(row.unit, []).append(index)
        return [np.array(found[unit], dtype=np.int64) for unit in sorted(found)]


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to one length.

    ``next_labels_RL`` is shifted: what the model must say *after* each place.
    """

    input_ids_RL: Tensor
    attention_mask_RL: Tensor
    position_ids_RL: Tensor
    next_labels_RL: Tensor
    features: tuple[Tensor, ...]
    """One (S, D) tensor an image, in the order of the slots."""

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on another device."""
        return Batch(
            self.input_ids_RL.to(device),
            self.attention_mask_RL.to(device),
            self.position_ids_RL.to(device),
            self.next_labels_RL.to(device),
            tuple(feature.to(device) for feature in self.features),
        )


def collate(encoded: EncodedSet, indices: Sequence[int]) -> Batch:
    """Return the rows ``indices`` as one batch; no rows give tensors with no rows."""
    rows = [encoded.rows[index] for index in indices]
    length = max((len(row.input_ids) for row in rows), default=0)
    return Batch(
        _pad([row.input_ids for row in rows], length, encoded.pad_token_id),
        _pad([(1,) * len(row.input_ids) for row in rows], length, 0),
        _pad([row.position_ids for row in rows], length, 0),
        _pad([(*row.labels[1:], IGNORED) for row in rows], length, IGNORED),
        tuple(encoded.features_ISD[image] for row in rows for image in row.images),
    )


def write_encoded(path: Path, encoded: EncodedSet, salt: str | None, owner: str | None = None) -> None:
    """Replace ``path`` by a set; only a public set has no ``salt`` and no ``owner``."""
    rows = encoded.rows
    with new_directory(path) as building, system_errors(path):
        for shard, features_ISD in enumerate(torch.split(encoded.features_ISD, IMAGES_PER_SHARD)):
            save_file({"features": features_ISD.contiguous()}, building / f"features-{shard:05d}.safetensors")
        flat = {
            "input_ids": _flat(row.input_ids for row in rows),
            "labels": _flat(row.labels for row in rows),
            "position_ids": _flat(row.position_ids for row in rows),
            "length": torch.tensor([len(row.input_ids) for row in rows], dtype=torch.int64),
            "images": _flat(row.images for row in rows),
            "image_count": torch.tensor([len(row.images) for row in rows], dtype=torch.int64),
            "unit": torch.tensor([row.unit for row in rows], dtype=torch.int64),
            "kind": torch.tensor([row.kind for row in rows], dtype=torch.int64),
        }
        about = {
            "kinds": list(encoded.kinds),
            "pad": encoded.pad_token_id,
            "image": encoded.image_token_id,
        }
        save_file(flat, building / "rows.safetensors", metadata={"about": json.dumps(about)})
        if salt is not None:
            (building / "salt").write_text(salt + "\n")
        if owner is not None:
            write_owner(building, owner)


def read_encoded(path: Path) -> EncodedSet:
    """Read a set back; a missing or broken folder is a ValueError that names it."""
    try:
        shards = sorted(path.glob("features-*.safetensors"))
        features = [_load(shard)[0]["features"] for shard in shards]
        flat, said = _load(path / "rows.safetensors")
        about = json.loads(said["about"])
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{path} is not an encoded record set ({error}): run `dvc repro encode`") from None
    cut = {name: _cut(flat[name], flat["length"]) for name in ("input_ids", "labels", "position_ids")}
    images = _cut(flat["images"], flat["image_count"])
    rows = tuple(
        TokenRow(*row)
        for row in zip(
            cut["input_ids"],
            cut["labels"],
            cut["position_ids"],
            images,
            flat["unit"].tolist(),
            flat["kind"].tolist(),
            strict=True,
        )
    )
    return EncodedSet(
        features_ISD=torch.cat(features) if features else torch.zeros(0, 0, 0),
        rows=rows,
        kinds=tuple(about["kinds"]),
        pad_token_id=about["pad"],
        image_token_id=about["image"],
    )


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def _flat(values: Iterable[Sequence[int]]) -> Tensor:
    return torch.tensor([item for part in values for item in part], dtype=torch.int64)


def _cut(flat: Tensor, lengths: Tensor) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in torch.split(flat, lengths.tolist())]


def _pad(rows: Sequence[Sequence[int]], length: int, filler: int) -> Tensor:
    padded = torch.full((len(rows), length), filler, dtype=torch.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return padded
