"""The shapes of TRL and Hugging Face parquet, beside those that test_source.py writes in every format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from stages.records.row import Message
from stages.records.source import Source, read_source

TURNS = [{"role": "user", "content": "which ?"}, {"role": "assistant", "content": "two"}]


def read_one(tmp_path: Path, record: dict[str, Any], schema: pyarrow.Schema | None = None) -> Any:
    """Return the only row of a parquet file that holds ``record``."""
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"unit": "u"} | record], schema=schema), file)
    source = Source(
        path=tmp_path,
        rows="rows.parquet",
        format="messages",
        unit="unit",
        kind=None,
        split=None,
        on_bad_record="stop",
    )
    return read_source(source)[0].row


@pytest.mark.parametrize("shape", ["struct", "binary", "path", "one struct", "one binary", "one path"])
def test_an_image_column_of_any_usual_shape_gives_the_bytes(
    shape: str, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    content = picture(3)
    (tmp_path / "a.png").write_bytes(content)
    columns: dict[str, dict[str, Any]] = {
        "struct": {"images": [{"bytes": content, "path": None}]},
        "binary": {"images": [content]},
        "path": {"images": [{"bytes": None, "path": "a.png"}]},
        "one struct": {"image": {"bytes": content, "path": "elsewhere.png"}},
        "one binary": {"image": content},
        "one path": {"image": "a.png"},
    }
    row = read_one(tmp_path, {"messages": TURNS} | columns[shape])
    assert row.images == (content,)
    assert row.messages[0] == Message("user", "<image>\nwhich ?")


def test_images_without_marks_go_before_the_first_user_turn(
    tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    turns = [{"role": "system", "content": "be brief"}, *TURNS, *TURNS]
    row = read_one(tmp_path, {"messages": turns, "images": [picture(1), picture(2)]})
    assert [turn.content for turn in row.messages] == [
        "be brief",
        "<image>\n<image>\nwhich ?",
        "two",
        "which ?",
        "two",
    ]


def test_parts_stand_in_their_order_one_a_line(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    image, texts = {"type": "image", "text": None}, ("look", "and tell")
    parts = [{"type": "text", "text": texts[0]}, image, {"type": "text", "text": texts[1]}]
    answer = [{"type": "text", "text": "two"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    row = read_one(tmp_path, {"messages": turns, "images": [picture(1)]})
    assert row.messages == (Message("user", "look\n<image>\nand tell"), Message("assistant", "two"))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "text", "text": "a <image> b"}, "a text part holds <image>"),
        ({"type": "video", "text": None}, "a part is neither text nor image"),
        ({"type": "text", "text": None}, "a text part is of type NoneType"),
    ],
)
def test_a_part_that_is_no_plain_text_or_image_is_refused(
    part: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    turns = [
        {"role": "user", "content": [part]},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ]
    with pytest.raises(ValueError, match=f"record 'row 1': {reason}"):
        read_one(tmp_path, {"messages": turns})


@pytest.mark.parametrize("images", [[None], [{"bytes": None, "path": None}], [7]])
def test_an_image_of_neither_bytes_nor_path_is_refused(images: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record 'row 1': image .* is not the name of a file"):
        read_one(tmp_path, {"messages": TURNS, "images": images})


def test_null_images_are_a_row_of_text(tmp_path: Path) -> None:
    assert read_one(tmp_path, {"messages": TURNS, "images": None}).images == ()


def test_messages_that_are_not_turns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record 'row 1': 'messages' is not a list of turns"):
        read_one(tmp_path, {"messages": "hello"})


def test_a_file_without_the_messages_column_is_refused_with_the_columns_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows.parquet has no column 'messages' but \['unit', 'text'\]"):
        read_one(tmp_path, {"text": "a"})


def test_a_parquet_file_with_a_corrupt_page_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    rows = [{"unit": f"unit {number}", "messages": TURNS} for number in range(200)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, compression="zstd")
    content = bytearray(file.read_bytes())
    content[40:90] = b"\xff" * 50
    file.write_bytes(content)
    source = Source(
        path=file, rows=None, format="messages", unit="unit", kind=None, split=None, on_bad_record="stop"
    )
    with pytest.raises(ValueError, match="is not readable parquet"):
        read_source(source)
