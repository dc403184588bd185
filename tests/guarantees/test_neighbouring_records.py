"""With public choices, what one private unit is changes nothing that is made of the others."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from checkout import dvc

from stages.records.encoded import EncodedSet, read_encoded
from stages.records.store import read_rows
from stages.records.token_rows import TokenRow

CHOICES = (
    "data/profile/profile.json",
    "data/profile/importance.csv",
    "data/profile/layers.png",
    "data/calibrate/pruning.json",
    "data/calibrate/frontier.csv",
    "data/calibrate/patches.png",
)
PRIVATE = "data/demonstration/private.parquet"


def without(checkout: Path, unit: str, neighbour: Path) -> Path:
    """Return a copy of a checkout whose private records lack one unit."""
    shutil.copytree(checkout, neighbour, symlinks=True)
    table = pyarrow.parquet.read_table(neighbour / PRIVATE)
    kept = [row for row in table.to_pylist() if row["image_id"] != unit]
    assert 0 < len(kept) < table.num_rows
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(kept, schema=table.schema), neighbour / PRIVATE)
    return neighbour


def by_id(checkout: Path, split: str) -> dict[str, tuple[TokenRow, EncodedSet]]:
    encoded = read_encoded(checkout / "data/encoded" / split)
    rows = read_rows(checkout / "data/records" / split)
    return {row.id: (tokens, encoded) for row, tokens in zip(rows, encoded.rows, strict=True)}


@pytest.mark.slow
def test_removing_a_unit_changes_no_choice_and_no_other_units_records(
    encoded_checkout: Path, tmp_path: Path
) -> None:
    gone = read_rows(encoded_checkout / "data/records/train")[4].unit
    neighbour = without(encoded_checkout, gone, tmp_path / "neighbour")
    dvc(neighbour, "repro", "encode")
    for file in CHOICES:
        assert (neighbour / file).read_bytes() == (encoded_checkout / file).read_bytes(), file
    assert json.loads((neighbour / CHOICES[0]).read_text())["records"] == "public"
    missing = 0
    for split in ("train", "heldout"):
        before, after = by_id(encoded_checkout, split), by_id(neighbour, split)
        assert set(after) <= set(before)
        missing += len(before) - len(after)
        for name, (tokens, encoded) in after.items():
            old, old_encoded = before[name]
            assert tokens.input_ids == old.input_ids and tokens.labels == old.labels
            assert tokens.position_ids == old.position_ids
            for image, old_image in zip(tokens.images, old.images, strict=True):
                assert torch.equal(encoded.features[image], old_encoded.features[old_image])
    assert missing == 3, "the unit's rows, and no others, are gone"
