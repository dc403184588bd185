"""Where records come from: a file or folder of the user's, in one of three formats, checked one by one."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from stages.records import llava, messages, openai
from stages.records.conversation import Conversation
from stages.records.fields import Record, declared_split, kind_of, record_id, unit_of
from stages.records.picture import check_picture
from stages.records.refusal import Unusable, quote, refuse_records
from stages.records.row import Row, SourcedRow, Split

Format = Literal["messages", "llava", "openai"]
_RECORDS: dict[Format, Callable[[Path], Iterator[Record]]] = {
    "messages": messages.records,
    "llava": llava.records,
    "openai": openai.records,
}
_READ: dict[Format, Callable[[Record, Path | None], Conversation]] = {
    "messages": messages.read,
    "llava": llava.read,
    "openai": openai.read,
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Section ``data.private`` or ``data.public`` of params.yaml."""

    path: Path
    """A file, or a folder that holds the rows and their images."""
    rows: str | None
    """The rows file inside the folder; null for a single file, or for all parquet files of a folder."""
    format: Format
    unit: str
    """The field that names the privacy unit."""
    kind: str | None
    """The field that names the kind of question; null: one kind."""
    split: str | None
    """The field that says train or heldout; null: a keyed hash of the unit's id decides."""
    on_bad_record: Literal["stop", "skip"]
    """What becomes of a record that cannot be used for what it is itself, such as a corrupt image."""

    def __post_init__(self) -> None:
        """Refuse a rows file outside the folder, which DVC would not watch."""
        if self.rows is not None:
            rows = PurePosixPath(self.rows)
            if not rows.parts or rows.is_absolute() or ".." in rows.parts:
                raise ValueError(f"rows in section 'data' must name a file inside path, got {self.rows!r}")

    def files(self) -> list[Path]:
        """Return the files that hold the rows, in the order of their names."""
        if not self.path.exists():
            raise ValueError(f"{self.path} does not exist: put the data there, or set path in params.yaml")
        if self.rows is not None:
            file = self.path / self.rows
            if not file.is_file():
                raise ValueError(f"{file} is not a file: set rows to a file inside the folder {self.path}")
            return [file]
        if not self.path.is_dir():
            return [self.path]
        shards = sorted(self.path.glob("*.parquet")) if self.format == "messages" else []
        if not shards:
            raise ValueError(f"{self.path} is a folder without parquet files: set rows to its rows file")
        return shards


@dataclass(frozen=True)
class Problem:
    """Why a record cannot be used."""

    record: str
    """Its id, or where it stands."""
    reason: Unusable
    is_alone: bool
    """Whether it is bad by itself, and not for what it is beside others."""

    def __str__(self) -> str:
        """Return what a person is told."""
        return f"record {quote(self.record)}: {self.reason}"


def read_source(source: Source, set_aside: list[str] | None = None) -> list[SourcedRow]:
    """Return every record of ``source``, in order, all of them usable.

    Guarantee: ids are unique, each row has one unit, each unit one split, each image decodes; equal images
    are one object. Otherwise a ValueError names the first bad records by id, in one sentence.

    With ``on_bad_record: skip`` a record that is bad by itself is left out and named in ``set_aside``: the
    rule looks at that record alone, so it costs no privacy, but how many there are is private. Records that
    contradict others stop all the same.
    """
    rows: list[SourcedRow] = []
    problems: list[str] = []
    for found in checked_records(source):
        if isinstance(found, SourcedRow):
            rows.append(found)
        elif source.on_bad_record == "stop" or not found.is_alone:
            problems.append(str(found))
        elif set_aside is not None:
            set_aside.append(str(found))
    refuse_records(source.path, problems)
    if not rows:
        raise ValueError(f"{source.path} holds no records: put some there, or set path in params.yaml")
    return rows


def checked_records(source: Source) -> Iterator[SourcedRow | Problem]:
    """Yield every record of ``source``, in order: usable, or why it is not."""
    folder = source.path if source.path.is_dir() else None
    ids: set[str] = set()
    splits: dict[str, Split | None] = {}
    album: dict[bytes, bytes] = {}
    for position, record in enumerate(_records(source), 1):
        name = f"row {position}"
        try:
            name = record_id(record, position)
            if name in ids:
                raise Unusable("an earlier record has the same id", "give every record its own")
            ids.add(name)
            try:
                found = _row(source, record, name, folder, album)
            except Unusable as reason:
                yield Problem(name, reason, is_alone=True)
                continue
            if splits.setdefault(found.row.unit, found.split) != found.split:
                raise Unusable("its unit is in both splits", "give all records of a unit the same split")
        except Unusable as reason:
            yield Problem(name, reason, is_alone=False)
        else:
            yield found


def _records(source: Source) -> Iterator[Record]:
    for file in source.files():
        yield from _RECORDS[source.format](file)


def _row(
    source: Source, record: Record, name: str, folder: Path | None, album: dict[bytes, bytes]
) -> SourcedRow:
    unit, kind = unit_of(record, source.unit), kind_of(record, source.kind)
    split = declared_split(record, source.split)
    found = _READ[source.format](record, folder)
    images = tuple(_checked(image, f"image {number}", album) for number, image in enumerate(found.images, 1))
    return SourcedRow(Row(name, unit, kind, found.messages, images), split)


def _checked(image: bytes, name: str, album: dict[bytes, bytes]) -> bytes:
    """Check an image once, however many rows show it, and keep one copy of it."""
    digest = hashlib.sha256(image).digest()
    if digest not in album:
        album[digest] = check_picture(image, name)
    return album[digest]
