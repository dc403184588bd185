"""OpenAI's chat JSONL where it differs from the other formats."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.records.row import Message
from stages.records.source import Source, read_source

GOOD = {"unit": "u", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


def source_of(tmp_path: Path, *lines: str) -> Source:
    """Return a source that is one JSONL file."""
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    return Source(
        path=file, rows=None, format="openai", unit="unit", kind=None, split=None, on_bad_record="stop"
    )


def asking(*parts: dict[str, Any]) -> str:
    """Return a line whose question is ``parts``."""
    turns = [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": "ho"}]
    return json.dumps({"unit": "u", "messages": turns})


@pytest.mark.parametrize("broken", ['{"unit": ', "{'unit': 1}", "\x00", '{"a": 1} {"b": 2}'])
def test_a_broken_line_is_refused_with_its_number(broken: str, tmp_path: Path) -> None:
    good = json.dumps(GOOD)
    with pytest.raises(ValueError, match="rows.jsonl: line 3 is not valid JSON") as refusal:
        read_source(source_of(tmp_path, good, "", broken, good))
    assert "\n" not in str(refusal.value)


def test_a_line_that_is_no_object_is_refused_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows.jsonl: line 2 is not an object"):
        read_source(source_of(tmp_path, json.dumps(GOOD), "[]"))


def test_blank_lines_and_unusual_line_separators_in_text_are_fine(tmp_path: Path) -> None:
    text = {"role": "user", "content": "a\u2028b\x85c"}
    line = json.dumps(GOOD | {"messages": [text, GOOD["messages"][1]]}, ensure_ascii=False)  # type: ignore[index]
    rows = read_source(source_of(tmp_path, line, "", line, ""))
    assert [sourced.row.messages[0].content for sourced in rows] == ["a\u2028b\x85c"] * 2


def test_images_stand_where_their_parts_stood(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    parts = [
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + base64.b64encode(entry).decode()},
        }
        for entry in (picture(1), picture(2))
    ]
    row = read_source(source_of(tmp_path, asking(parts[0], {"type": "text", "text": "or"}, parts[1])))[0].row
    assert row.messages[0] == Message("user", "<image>\nor\n<image>")
    assert row.images == (picture(1), picture(2))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": "data:,"},
        {"type": "image_url"},
        {"type": "image_url", "image_url": {}},
    ],
)
def test_an_image_url_without_url_is_refused(part: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record 'row 1': an image_url is not embedded"):
        read_source(source_of(tmp_path, asking(part)))


@pytest.mark.parametrize("part", [{"type": "input_audio"}, {"text": "a"}])
def test_a_part_of_another_type_is_refused(part: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record 'row 1': a part is neither text nor image_url"):
        read_source(source_of(tmp_path, asking(part)))
