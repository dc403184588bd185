"""Fashion-MNIST as records: read from files in the IDX format, and usable by stage ingest."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fashion_mnist
from pipeline.compare.grid import read_grid
from stages.demonstration.questions import NUMBERS
from stages.records.source import Source, read_source

ROOT = Path(__file__).parents[2]


def idx(values: np.ndarray) -> bytes:
    """Return an array of bytes in the IDX format."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes())


def test_records_are_split_as_the_source_is_and_ingest_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dice, labels = np.random.default_rng(0), {}
    for prefix, count in (("train", 7), ("t10k", 3)):
        labels[prefix] = dice.integers(10, size=count)
        images = dice.integers(256, size=(count, 28, 28))
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(labels[prefix]))
    monkeypatch.setattr(fashion_mnist, "_GROUP", 4)
    to = tmp_path / "made/private.parquet"
    monkeypatch.setattr(sys, "argv", ["fashion_mnist", "--source", str(tmp_path), "--to", str(to)])
    fashion_mnist.main()
    source = Source(
        path=to,
        rows=None,
        format="messages",
        unit="image_id",
        kind="kind",
        split="split",
        on_bad_record="stop",
    )
    found = read_source(source)
    assert [each.split for each in found] == ["train"] * 7 + ["heldout"] * 3
    assert [each.row.messages[1].content for each in found] == [
        NUMBERS[label] for prefix in ("train", "t10k") for label in labels[prefix]
    ]
    assert len({each.row.unit for each in found}) == 10
    assert "7 images, train" in capsys.readouterr().out


def test_the_grid_is_a_grid() -> None:
    grid = read_grid(ROOT / "benchmarks/grids/fashion_mnist.yaml")
    assert grid.params["data"]["private"]["path"] == "data/fashion/private.parquet"
