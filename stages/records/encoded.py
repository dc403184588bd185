"""Encoded record sets: pruned visual features and token rows, as safetensors.

A folder holds ``rows-NNNNN.safetensors`` and ``features-NNNNN.safetensors``, which are memory-mapped, an
``index.safetensors`` that says what they are, and, for private records, a ``salt`` that keeps the folder's
digest from being guessed.

Shapes: R rows, L tokens of the longest row of a batch, A axes of a position (1; 3 for models with M-RoPE),
I images, S kept visual slots of one image, D width of a visual feature, U units.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.core.disk_errors import system_errors
from stages.core.files import new_directory
from stages.records.features import Features
from stages.records.owner import write_owner
from stages.records.token_rows import IGNORED, TokenRows
from stages.records.unit_rows import UnitRows

_INDEX = "index.safetensors"
BYTES_PER_SHARD = 2**28


@dataclass(frozen=True)
class EncodedSet:
    """All rows and features of one split."""

    features: Features
    rows: TokenRows
    kinds: tuple[str, ...]
    pad_token_id: int
    image_token_id: int
    visual_tokens: int | None
    """Most visual tokens of an image, a public constant of rule and model; None where there is none."""

    def __post_init__(self) -> None:
        """Refuse a row that has not as many slots as features.

        transformers checks only a batch's total, and an off-by-one there would let a row see another's image.
        """
        if (self.rows.occurrences(self.image_token_id) != self.rows.slots(self.features.slots_I)).any():
            raise ValueError("an encoded row has not as many slots as features: run `dvc repro -f encode`")

    def rows_by_unit(self) -> UnitRows:
        """Return, for each unit index, the indices of its rows."""
        return UnitRows(self.rows.units())


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
    return Batch(
        _pad([row.input_ids for row in rows], length, encoded.pad_token_id),
        _pad([(1,) * len(row.input_ids) for row in rows], length, 0),
        torch.stack(
            [_pad([row.position_ids[axis] for row in rows], length, 0) for axis in range(encoded.rows.axes)]
        ),
        _pad([(*row.labels[1:], IGNORED) for row in rows], length, IGNORED),
        tuple(encoded.features[image] for row in rows for image in row.images),
    )


def write_encoded(path: Path, encoded: EncodedSet, salt: str | None, owner: str | None = None) -> None:
    """Replace ``path`` by a set; only a public set has no ``salt`` and no ``owner``."""
    with new_directory(path) as building, system_errors(path):
        for shard, images in enumerate(_shards(encoded.features)):
            flat_FD = torch.cat([encoded.features[image] for image in images])
            save_file({"features": flat_FD}, building / f"features-{shard:05d}.safetensors")
        encoded.rows.write(building)
        _write_index(building, encoded)
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


def _write_index(building: Path, encoded: EncodedSet) -> None:
    about = {
        "kinds": list(encoded.kinds),
        "pad": encoded.pad_token_id,
        "image": encoded.image_token_id,
        "rows": len(encoded.rows),
        "visual_tokens": encoded.visual_tokens,
    }
    slots_I = torch.from_numpy(encoded.features.slots_I)
    save_file({"slots": slots_I}, building / _INDEX, metadata={"about": json.dumps(about)})


def read_encoded(path: Path) -> EncodedSet:
    """Read a set back, features and rows as memory-mapped views; a missing or broken one is a ValueError."""
    try:
        shards = sorted(path.glob("features-*.safetensors"))
        parts = tuple(_load(shard)[0]["features"] for shard in shards)
        index, said = _load(path / _INDEX)
        about = json.loads(said["about"])
        rows = TokenRows.read(path)
        if len(rows) != about["rows"]:
            raise KeyError(f"{len(rows)} of {about['rows']} rows")
        features = Features.in_order(parts, index["slots"].numpy())
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{path} is not an encoded record set ({error}): run `dvc repro encode`") from None
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


def _pad(rows: Sequence[Sequence[int]], length: int, filler: int) -> Tensor:
    padded = torch.full((len(rows), length), filler, dtype=torch.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return padded
