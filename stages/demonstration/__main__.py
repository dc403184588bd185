"""Write the demonstration record sets: ``python -m stages.demonstration``."""

from pathlib import Path

from stages.demonstration import record_set
from stages.demonstration.stand_in import stand_in_records

SEED = 20260101
SCENE_COUNT = 1500


def main() -> None:
    """Write ``data/demonstration/{private,public,stand_in}.parquet`` below the current directory."""
    folder = Path("data/demonstration")
    for name, records in (
        ("private", record_set.private_records(SEED, limit=None)),
        ("public", record_set.public_records(SEED, limit=None, scene_count=SCENE_COUNT)),
        ("stand_in", stand_in_records(record_set.public_records(SEED, limit=None, scene_count=0))),
    ):
        path = folder / f"{name}.parquet"
        count = record_set.write(records, path)
        print(f"{path}: {count} records, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
