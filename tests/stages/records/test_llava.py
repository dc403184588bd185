"""LLaVA's JSON where it differs from the other formats."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.records.source import Source, read_source

TURNS = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]


def source_of(tmp_path: Path, text: str) -> Source:
    """Return a source of one JSON file."""
    (tmp_path / "rows.json").write_text(text)
    return Source(
        path=tmp_path,
        rows="rows.json",
        format="llava",
        unit="unit",
        kind=None,
        split=None,
        on_bad_record="stop",
    )


@pytest.mark.parametrize("image", [{}, {"image": None}, {"image": ""}, {"image": []}])
def test_a_record_without_image_is_a_row_of_text(image: dict[str, Any], tmp_path: Path) -> None:
    record = {"unit": "u", "conversations": TURNS} | image
    assert read_source(source_of(tmp_path, json.dumps([record])))[0].row.images == ()


@pytest.mark.parametrize("image", [7, {"bytes": "AA"}, [None]])
def test_an_image_that_names_no_file_is_refused(image: object, tmp_path: Path) -> None:
    record = {"unit": "u", "conversations": TURNS, "image": image}
    with pytest.raises(ValueError, match="record 'row 1': image .* is not the name of a file"):
        read_source(source_of(tmp_path, json.dumps([record])))


@pytest.mark.parametrize("turns", [None, "hi", [["human", "hi"]], {"human": "hi"}])
def test_conversations_that_are_not_turns_are_refused(turns: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record 'row 1': 'conversations' is not a list of turns"):
        read_source(source_of(tmp_path, json.dumps([{"unit": "u", "conversations": turns}])))


def test_broken_json_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows.json is not valid JSON \(.*line 2 column 20"):
        read_source(source_of(tmp_path, '[{"unit": "u",\n   "conversations" []}]'))


@pytest.mark.parametrize("text", ["{}", "[1]", '"rows"'])
def test_json_that_is_not_a_list_of_objects_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows.json is not one JSON list of objects"):
        read_source(source_of(tmp_path, text))


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps([{"unit": "u", "conversations": TURNS}])
    assert len(read_source(source_of(tmp_path, text))) == 1
