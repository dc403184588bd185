"""The stand-in holds the public digits, in another style."""

from pathlib import Path

import pyarrow.parquet

from stages.demonstration import record_set
from stages.demonstration.stand_in import restyle, stand_in_records

DEMONSTRATION = Path(__file__).parents[3] / "data/demonstration"


def test_records_keep_what_they_ask_and_change_how_they_look() -> None:
    plain = list(record_set.public_records(3, limit=5, scene_count=0))
    styled = list(stand_in_records(iter(plain)))
    assert [(a.id, a.image_id, a.kind, a.messages) for a in styled] == [
        (b.id, b.image_id, b.kind, b.messages) for b in plain
    ]
    assert len({record.images[0]["bytes"] for record in styled}) == 5
    assert not {record.images[0]["bytes"] for record in styled} & {
        record.images[0]["bytes"] for record in plain
    }
    assert styled == list(stand_in_records(iter(plain)))


def test_a_style_is_a_function_of_image_and_seed() -> None:
    record = next(record_set.public_records(3, limit=1, scene_count=0))
    image = record.images[0]["bytes"]
    assert isinstance(image, bytes)
    assert restyle(image, 1) == restyle(image, 1) != restyle(image, 2)


def test_the_committed_stand_in_is_of_public_digits_alone() -> None:
    table = pyarrow.parquet.read_table(DEMONSTRATION / "stand_in.parquet", columns=["id", "image_id"])
    public = pyarrow.parquet.read_table(DEMONSTRATION / "public.parquet", columns=["id"])
    assert set(table["id"].to_pylist()) < set(public["id"].to_pylist())
    assert all(name.startswith("digit-") for name in table["image_id"].to_pylist())
