"""The two demonstration record sets, in the parquet layout that TRL and Hugging Face datasets read.

A record is one question and its answer about one image. Its privacy unit is the image (``image_id``): a
private image has three records, one of each digit kind.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import pyarrow
import pyarrow.parquet
from PIL import Image

from stages.demonstration import images, questions, scenes
from stages.demonstration.questions import Question

_MESSAGE = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
_IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("image_id", pyarrow.string()),
        ("kind", pyarrow.string()),
        ("messages", pyarrow.list_(_MESSAGE)),
        ("images", pyarrow.list_(_IMAGE)),
    ]
)


@dataclass(frozen=True)
class Record:
    """One row of a record set."""

    id: str
    image_id: str
    kind: str
    messages: list[dict[str, str]]
    images: list[dict[str, bytes | str]]


def private_records(seed: int, *, limit: int | None) -> Iterator[Record]:
    """Yield three records for each of ``limit`` shuffled MNIST images (all 5,000 with None)."""
    random = Random(f"private {seed}")
    pictures = list(zip(*images.padded_mnist(), strict=True))
    random.shuffle(pictures)
    for number, (image, digit) in enumerate(pictures[:limit]):
        yield from _records(f"mnist-{number:05d}", image, questions.ask_about_digit(digit, random))


def public_records(seed: int, *, limit: int | None, scene_count: int) -> Iterator[Record]:
    """Yield four records for each of ``limit`` scikit-learn digits (1,797 with None), then those of scenes.

    A drawn scene has four records, or five when it holds a lone shape at one side.
    """
    random = Random(f"public {seed}")
    pictures = list(zip(*images.enlarged_digits(), strict=True))
    for number, (image, digit) in enumerate(pictures[:limit]):
        asked = [*questions.ask_about_digit(digit, random), questions.ask_comparison(digit, random)]
        yield from _records(f"digit-{number:05d}", image, asked)
    for number in range(scene_count):
        scene = scenes.imagine(random)
        yield from _records(f"scene-{number:05d}", scenes.draw(scene, images.SIZE, random), scene.ask(random))


def write(records: Iterator[Record], path: Path) -> int:
    """Write records as zstd parquet and return their number.

    Guarantee: equal records give equal bytes (for one pyarrow version).
    """
    table = pyarrow.Table.from_pylist([asdict(record) for record in records], schema=SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, compression="zstd", compression_level=19, use_dictionary=False)
    return int(table.num_rows)


def _records(image_id: str, image: Image.Image, asked: list[Question]) -> Iterator[Record]:
    picture: dict[str, bytes | str] = {"bytes": images.encode_png(image), "path": f"{image_id}.png"}
    for number, question in enumerate(asked):
        turns = [
            {"role": "user", "content": f"<image>\n{question.text}"},
            {"role": "assistant", "content": question.answer},
        ]
        yield Record(f"{image_id}-{number}", image_id, question.kind, turns, [picture])
