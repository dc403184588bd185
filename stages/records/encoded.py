"""Encoded record sets: pruned visual features and token rows, as safetensors.

A folder holds ``rows.safetensors`` (token rows, cut from flat arrays by offsets),
``features-NNNNN.safetensors`` shards, which are memory-mapped, and, for private records, a ``salt`` that
keeps the folder's digest from being guessed.

Shapes: R rows, L tokens of the longest row of a batch, A axes of a position (1; 3 for models with M-RoPE),
I images, S kept visual slots of one image, D width of a visual feature, U units.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
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
from stages.records.features import Features
from stages.records.owner import write_owner

IGNORED = -100
BYTES_PER_SHARD = 2**28


@dataclass(frozen=True)
class TokenRow:
    """One row as the language model reads it: slots pruned, positions of the unpruned sequence."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """The token to predict *at* each place (not shifted), IGNORED where nothing is learned."""
    position_ids: tuple[tuple[int, ...], ...]
    """Along each axis, A of them, the position of every token."""
    images: tuple[int, ...]
    """Indices into the set's features, in the order of the row's slots."""
    unit: int
    kind: int


@dataclass(frozen=True)
class EncodedSet:
    """All rows and features of one split."""

    features: Features
    rows: tuple[TokenRow, ...]
    kinds: tuple[str, ...]
    pad_token_id: int
    image_token_id: int
    visual_tokens: int | None
    """Most visual tokens of an image, a public constant of rule and model; None where there is none."""

    def __post_init__(self) -> None:
        """Refuse a row that has not as many slots as features.

        transformers checks only a batch's total, and an off-by-one there would let a row see another's image.
        """
        slots_I = self.features.slots_I
        for row in self.rows:
            if row.input_ids.count(self.image_token_id) != sum(int(slots_I[image]) for image in row.images):
                raise ValueError(
                    "an encoded row has not as many slots as features: run `dvc repro -f encode`"
                )

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
    position_ids_ARL: Tensor
    next_labels_RL: Tensor
    features: tuple[Tensor, ...]
    """One (S, D) tensor an image, in the order of the slots."""

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on another device."""
        return Batch(
            self.input_ids_RL.to(device),
            self.attention_mask_RL.to(device),
            self.position_ids_ARL.to(device),
            self.next_labels_RL.to(device),
            tuple(feature.to(device) for feature in self.features),
        )


def collate(encoded: EncodedSet, indices: Sequence[int]) -> Batch:
    """Return the rows ``indices`` as one batch; no rows give tensors with no rows."""
    rows = [encoded.rows[index] for index in indices]
    length = max((len(row.input_ids) for row in rows), default=0)
    axes = len(rows[0].position_ids) if rows else 1
    return Batch(
        _pad([row.input_ids for row in rows], length, encoded.pad_token_id),
        _pad([(1,) * len(row.input_ids) for row in rows], length, 0),
        torch.stack([_pad([row.position_ids[axis] for row in rows], length, 0) for axis in range(axes)]),
        _pad([(*row.labels[1:], IGNORED) for row in rows], length, IGNORED),
        tuple(encoded.features[image] for row in rows for image in row.images),
    )


def write_encoded(path: Path, encoded: EncodedSet, salt: str | None, owner: str | None = None) -> None:
    """Replace ``path`` by a set; only a public set has no ``salt`` and no ``owner``."""
    with new_directory(path) as building, system_errors(path):
        for shard, images in enumerate(_shards(encoded.features)):
            flat_FD = torch.cat([encoded.features[image] for image in images])
            save_file({"features": flat_FD}, building / f"features-{shard:05d}.safetensors")
        _write_rows(building, encoded)
        if salt is not None:
            (building / "salt").write_text(salt + "\n")
        if owner is not None:
            write_owner(building, owner)


def _shards(features: Features) -> Iterator[range]:
    """Yield the images of each shard, in order: as many as fit into ``BYTES_PER_SHARD``, at least one."""
    each_I = features.slots_I * features.width * features.dtype.itemsize
    start, held = 0, 0
    for image, size in enumerate(each_I.tolist()):
        if image > start and held + size > BYTES_PER_SHARD:
            yield range(start, image)
            start, held = image, 0
        held += size
    if len(features):
        yield range(start, len(features))


def _write_rows(building: Path, encoded: EncodedSet) -> None:
    rows = encoded.rows
    flat = {
        "input_ids": _flat(row.input_ids for row in rows),
        "labels": _flat(row.labels for row in rows),
        "length": torch.tensor([len(row.input_ids) for row in rows], dtype=torch.int64),
        "images": _flat(row.images for row in rows),
        "image_count": torch.tensor([len(row.images) for row in rows], dtype=torch.int64),
        "unit": torch.tensor([row.unit for row in rows], dtype=torch.int64),
        "kind": torch.tensor([row.kind for row in rows], dtype=torch.int64),
        "slots": torch.from_numpy(encoded.features.slots_I),
    }
    axes = len(rows[0].position_ids) if rows else 1
    for axis in range(axes):
        flat[f"position_ids_{axis}"] = _flat(row.position_ids[axis] for row in rows)
    about = {
        "kinds": list(encoded.kinds),
        "pad": encoded.pad_token_id,
        "image": encoded.image_token_id,
        "axes": axes,
        "visual_tokens": encoded.visual_tokens,
    }
    save_file(flat, building / "rows.safetensors", metadata={"about": json.dumps(about)})


def read_encoded(path: Path) -> EncodedSet:
    """Read a set back, features as memory-mapped views; a missing or broken folder is a ValueError."""
    try:
        shards = sorted(path.glob("features-*.safetensors"))
        parts = tuple(_load(shard)[0]["features"] for shard in shards)
        flat, said = _load(path / "rows.safetensors")
        about = json.loads(said["about"])
        positions = [_cut(flat[f"position_ids_{axis}"], flat["length"]) for axis in range(about["axes"])]
        features = Features.in_order(parts, flat["slots"].numpy())
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{path} is not an encoded record set ({error}): run `dvc repro encode`") from None
    rows = tuple(
        TokenRow(*row)
        for row in zip(
            _cut(flat["input_ids"], flat["length"]),
            _cut(flat["labels"], flat["length"]),
            zip(*positions, strict=True),
            _cut(flat["images"], flat["image_count"]),
            flat["unit"].tolist(),
            flat["kind"].tolist(),
            strict=True,
        )
    )
    return EncodedSet(
        features=features,
        rows=rows,
        kinds=tuple(about["kinds"]),
        pad_token_id=about["pad"],
        image_token_id=about["image"],
        visual_tokens=about["visual_tokens"],
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
