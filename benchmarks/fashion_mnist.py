"""Fashion-MNIST as image-text records: 60,000 images to learn from and 10,000 held out.

``apt-get install dataset-fashion-mnist``, then ``python -m benchmarks.fashion_mnist``, then ``dualpriv
compare --jobs 2 --grid benchmarks/grids/fashion_mnist.yaml``. The answer is the number of the kind of
garment, in words that the demonstration backbone's tokenizer knows.
"""

import argparse
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image

from stages.demonstration.images import SIZE, encode_png
from stages.demonstration.questions import NUMBERS
from stages.demonstration.record_set import SCHEMA

QUESTION = "<image>\nwhat is shown ?"
PARTS = {"train": "train", "heldout": "t10k"}
_GROUP = 4096


def main() -> None:
    """Write the records."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    options.add_argument("--to", type=Path, default=Path("data/fashion/private.parquet"))
    given = options.parse_args()
    if not given.source.is_dir():
        raise SystemExit(f"{given.source} is missing: apt-get install dataset-fashion-mnist, or say --source")
    given.to.parent.mkdir(parents=True, exist_ok=True)
    schema = SCHEMA.append(pyarrow.field("split", pyarrow.string()))
    with pyarrow.parquet.ParquetWriter(given.to, schema, compression="zstd") as writer:
        for split, prefix in PARTS.items():
            images_NHW = read_idx(given.source / f"{prefix}-images-idx3-ubyte.gz")
            labels_N = read_idx(given.source / f"{prefix}-labels-idx1-ubyte.gz")
            for start in range(0, len(labels_N), _GROUP):
                part = slice(start, start + _GROUP)
                rows = list(records(split, start, images_NHW[part], labels_N[part]))
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            print(f"{given.to}: {len(labels_N)} images, {split}")


def records(
    split: str, first: int, images_NHW: NDArray[np.uint8], labels_N: NDArray[np.uint8]
) -> Iterator[dict[str, object]]:
    """Yield one record an image, padded to the size that the backbone takes."""
    margin = (SIZE - images_NHW.shape[1]) // 2
    padded_NHW = np.pad(images_NHW, ((0, 0), (margin, margin), (margin, margin)))
    for index, (grey_HW, label) in enumerate(zip(padded_NHW, labels_N, strict=True), first):
        name = f"fashion-{split}-{index:05d}"
        png = encode_png(Image.fromarray(grey_HW, mode="L").convert("RGB"))
        yield {
            "id": name,
            "image_id": name,
            "kind": "garment",
            "messages": [
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": NUMBERS[label]},
            ],
            "images": [{"bytes": png, "path": f"{name}.png"}],
            "split": split,
        }


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an array of bytes in the IDX format of MNIST (LeCun et al. 1998)."""
    with gzip.open(path) as file:
        content = file.read()
    axes = content[3]
    shape = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


if __name__ == "__main__":
    main()
