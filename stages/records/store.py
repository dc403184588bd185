"""The canonical record set: a directory of rows, of the distinct images, and of a salt.

``rows.parquet`` refers to ``images.parquet`` by index. The salt of a private set makes the digest that
``dvc.lock`` shows of the directory unguessable; file sizes stay visible.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import pyarrow
import pyarrow.parquet

from stages.core.files import new_directory, write_text
from stages.records.owner import write_owner
from stages.records.refusal import first_sentence
from stages.records.row import Message, Row

ROWS, IMAGES, SALT = "rows.parquet", "images.parquet", "salt"
SALT_BYTES = 32
_GROUP = 1024
_IMAGES_GROUP = 64
_TURN = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
_ROWS_SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("unit", pyarrow.string()),
        ("kind", pyarrow.string()),
        ("messages", pyarrow.list_(_TURN)),
        ("images", pyarrow.list_(pyarrow.int32())),
    ]
)
_IMAGES_SCHEMA = pyarrow.schema([("image", pyarrow.large_binary())])


def write_rows(directory: Path, rows: Sequence[Row], salt: bytes | None, owner: str | None = None) -> None:
    """Replace ``directory`` by the record set of ``rows``; only a public set lacks ``salt`` and ``owner``.

    Guarantee: equal rows and salt give equal bytes (for one pyarrow version); an error leaves the old set.
    """
    if salt is not None and len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, got {len(salt)}")
    numbers: dict[bytes, int] = {}
    records = [
        {
            "id": row.id,
            "unit": row.unit,
            "kind": row.kind,
            "messages": [{"role": turn.role, "content": turn.content} for turn in row.messages],
            "images": [numbers.setdefault(image, len(numbers)) for image in row.images],
        }
        for row in rows
    ]
    with new_directory(directory) as building:
        _write(pyarrow.Table.from_pylist(records, schema=_ROWS_SCHEMA), building / ROWS, "zstd", _GROUP)
        _write(
            pyarrow.table({"image": list(numbers)}, schema=_IMAGES_SCHEMA),
            building / IMAGES,
            "none",
            _IMAGES_GROUP,
        )
        if salt is not None:
            write_text(building / SALT, salt.hex() + "\n")
        if owner is not None:
            write_owner(building, owner)


def read_rows(directory: Path) -> list[Row]:
    """Return the rows of a record set as they were written; a broken set is a ValueError that names it."""
    with _named_when_broken(directory):
        images = pyarrow.parquet.read_table(directory / IMAGES).column("image").to_pylist()
        records = pyarrow.parquet.read_table(directory / ROWS).to_pylist()
    return [_row(record, tuple(images[number] for number in record["images"])) for record in records]


@dataclass(frozen=True)
class StoredRecords:
    """A record set that is read from disk when it is asked for."""

    directory: Path
    images: "StoredImages"

    @classmethod
    def open(cls, directory: Path) -> "StoredRecords":
        """Open a record set; a broken set is a ValueError that names it."""
        with _named_when_broken(directory):
            pyarrow.parquet.read_metadata(directory / ROWS)
            return cls(directory, StoredImages(directory))

    def rows(self) -> Iterator[tuple[Row, tuple[int, ...]]]:
        """Yield each row, without the contents of its images, and the indices of those: some at a time."""
        for records in self._read(None):
            for record in records.to_pylist():
                yield _row(record, ()), tuple(record["images"])

    def kinds(self) -> list[str]:
        """Return the kinds of question, sorted."""
        return sorted(
            {kind for part in self._read(["kind"]) for kind in part.column("kind").unique().to_pylist()}
        )

    def _read(self, columns: list[str] | None) -> Iterator[pyarrow.RecordBatch]:
        with _named_when_broken(self.directory), pyarrow.parquet.ParquetFile(self.directory / ROWS) as file:
            yield from file.iter_batches(_GROUP, columns=columns)


class StoredImages(Sequence[bytes]):
    """The distinct images of a record set, a group of them in memory at a time."""

    def __init__(self, directory: Path) -> None:
        """Open the images of a record set."""
        self.directory, self.file = directory, pyarrow.parquet.ParquetFile(directory / IMAGES)
        sizes = [self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups)]
        self.ends = list(accumulate(sizes))
        self.group: tuple[int, list[bytes]] = (-1, [])

    def __len__(self) -> int:
        """Return the number of images."""
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """Return one image, fastest in order, or some."""
        if isinstance(index, slice):
            return [self[image] for image in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self.ends, index)
        if self.group[0] != number:
            with _named_when_broken(self.directory):
                read = self.file.read_row_group(number).column("image").to_pylist()
            self.group = (number, read)
        return self.group[1][index - (self.ends[number - 1] if number else 0)]


def read_units(directory: Path) -> list[str]:
    """Return the units of a record set as they first appear; a broken set is a ValueError that names it."""
    with _named_when_broken(directory):
        table = pyarrow.parquet.read_table(directory / ROWS, columns=["unit"])
        return list(dict.fromkeys(table.column("unit").to_pylist()))


def content_digest(rows: Sequence[Row]) -> bytes:
    """Return 32 bytes that change with any row, image or order; guessable, so never to be published."""
    digest = hashlib.sha256()
    for row in rows:
        turns = [[turn.role, turn.content] for turn in row.messages]
        images = [hashlib.sha256(image).hexdigest() for image in row.images]
        digest.update(json.dumps([row.id, row.unit, row.kind, turns, images]).encode() + b"\n")
    return digest.digest()


@contextmanager
def _named_when_broken(directory: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{directory} is missing: run `dvc repro` (or `dvc pull`) to make it") from None
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        reason = first_sentence(error)
        raise ValueError(f"{directory} is no record set ({reason}): run `dvc repro -f ingest`") from None


def _row(record: dict[str, Any], images: tuple[bytes, ...]) -> Row:
    return Row(
        id=record["id"],
        unit=record["unit"],
        kind=record["kind"],
        messages=tuple(Message(turn["role"], turn["content"]) for turn in record["messages"]),
        images=images,
    )


def _write(table: pyarrow.Table, path: Path, compression: str, group: int) -> None:
    pyarrow.parquet.write_table(table, path, compression=compression, row_group_size=group)
