"""Read the parquet of TRL and Hugging Face datasets: a column ``messages`` beside ``images`` or ``image``.

``content`` is text, with or without ``<image>`` marks, or a list of parts ``{type: text|image, text}``. An
image is a struct of ``bytes`` and ``path``, plain bytes, or a path below the source's folder.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from stages.records import conversation
from stages.records.conversation import Conversation, part_text
from stages.records.fields import Record, checked_text
from stages.records.picture import read_picture_file
from stages.records.refusal import Unusable, first_sentence
from stages.records.row import IMAGE, Message

BATCH = 256


def records(file: Path) -> Iterator[Record]:
    """Yield the rows of a parquet file as mappings; a broken file is a ValueError that names it."""
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            if "messages" not in names:
                raise ValueError(f"{file} has no column 'messages' but {names}: add it or set another format")
            for batch in parquet.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = first_sentence(error)
        raise ValueError(f"{file} is not readable parquet ({reason}): write it again or set format") from None


def read(record: Record, folder: Path | None) -> Conversation:
    """Return the conversation of one row; images without marks stand in front of the first user turn."""
    turns = [_turn(turn) for turn in conversation.turns_of(record, "messages")]
    images = tuple(_image(entry, folder) for entry in _entries(record))
    return Conversation(conversation.with_images_in_front(turns, len(images)), images)


def _turn(turn: dict[str, object]) -> Message:
    content = turn.get("content")
    if isinstance(content, list):
        text = conversation.joined([_part(part) for part in content])
    else:
        text = checked_text(content, "content")
    return conversation.message(turn.get("role"), text)


def _part(part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "image":
        return IMAGE
    if isinstance(part, dict) and part.get("type") == "text":
        return part_text(part.get("text"))
    raise Unusable("a part is neither text nor image", "give each part one of these types")


def _entries(record: Record) -> list[object]:
    if record.get("images") is None:
        return [] if record.get("image") is None else [record["image"]]
    images = record["images"]
    if not isinstance(images, list):
        raise Unusable("'images' is not a list", "name the column 'image' if it holds one image a row")
    return images


def _image(entry: object, folder: Path | None) -> bytes:
    if isinstance(entry, dict):
        entry = entry.get("path") if entry.get("bytes") is None else entry["bytes"]
    return entry if isinstance(entry, bytes) else read_picture_file(folder, entry)
