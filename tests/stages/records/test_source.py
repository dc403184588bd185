"""Whatever users have becomes equal rows; whatever cannot be used is refused by its id, in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from refused_source import FORMATS, assert_one_sentence, assert_refused

from stages.records.row import Message, Row
from stages.records.source import Source, read_source

Example = dict[str, Any]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_rows(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    rows = [sourced.row for sourced in read_source(write_source(format, examples))]
    assert rows == [
        Row(
            example["id"],
            example["patient"],
            example["kind"],
            tuple(Message(role, text) for role, text in example["turns"]),
            tuple(example["pictures"]),
        )
        for example in examples
    ]


BAD_TURNS = {
    "unknown role": ([("robot", "beep"), ("assistant", "two")], "role 'robot' is unknown"),
    "no answer": ([("user", "<image>\nwhich ?")], "no assistant turn"),
    "no turns": ([], "no assistant turn"),
    "empty answer": ([("user", "<image>\nwhich ?"), ("assistant", " ")], "turn 2 (assistant) is empty"),
    "empty question": (
        [("user", "<image>\na"), ("assistant", "b"), ("user", ""), ("assistant", "c")],
        "turn 3 (user) is empty",
    ),
    "two questions": ([("user", "a"), ("user", "<image>\nb"), ("assistant", "c")], "not an alternation"),
    "answer first": ([("assistant", "c"), ("user", "<image>\na")], "not an alternation"),
    "unanswered": ([("user", "<image>\na"), ("assistant", "c"), ("user", "b")], "not an alternation"),
    "late system": ([("user", "a"), ("system", "b"), ("assistant", "c")], "not an alternation"),
    "two marks": ([("user", "<image>\n<image>\na"), ("assistant", "c")], "<image>"),
    "mark in the answer": (
        [("user", "<image>\na"), ("assistant", "c <image>")],
        "turn 2 (assistant) holds <image>",
    ),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", BAD_TURNS)
def test_a_conversation_that_cannot_be_learned_is_refused(
    format: str,
    bad: str,
    examples: list[Example],
    write_source: Callable[..., Source],
    picture: Callable[..., bytes],
) -> None:
    turns, reason = BAD_TURNS[bad]
    examples[1] |= {"turns": turns, "pictures": [picture(9)]}
    assert_refused(write_source(format, examples), reason)


BAD_FIELDS: dict[str, tuple[Example, str]] = {
    "null unit": ({"patient": None}, "no privacy unit in 'patient'"),
    "empty unit": ({"patient": "  "}, "'patient' is empty"),
    "null kind": ({"kind": None}, "no kind in 'kind'"),
    "empty kind": ({"kind": ""}, "'kind' is empty"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", BAD_FIELDS)
def test_a_record_without_unit_or_kind_is_refused(
    format: str, bad: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    change, reason = BAD_FIELDS[bad]
    examples[1] |= change
    assert_refused(write_source(format, examples), reason)


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_of_two_units_is_refused_and_a_list_of_one_is_a_unit(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    for example in examples:
        example["patient"] = [example["patient"]]
    assert [sourced.row.unit for sourced in read_source(write_source(format, examples))] == ["p1", "p2", "p1"]
    examples[1]["patient"] = ["p2", "p3"]
    assert_refused(write_source(format, examples), "'patient' names 2 privacy units")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("unit", [1.5, True, {"name": "p"}])
def test_a_unit_that_is_neither_text_nor_a_whole_number_is_refused(
    format: str, unit: object, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    for number, example in enumerate(examples):
        example["patient"] = unit if number == 1 or format == "messages" else "p"
    with pytest.raises(ValueError, match=r"record 'a2': 'patient' is of type \w+ \(make it text\)"):
        read_source(write_source(format, examples))


@pytest.mark.parametrize("format", FORMATS)
def test_blanks_and_number_spelling_make_no_second_unit(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    for example, unit in zip(
        examples, [" 17", "17", "17 "] if format == "messages" else [17, "17", " 17 "], strict=True
    ):
        example["patient"] = unit
    assert {sourced.row.unit for sourced in read_source(write_source(format, examples))} == {"17"}


@pytest.mark.parametrize("format", FORMATS)
def test_an_id_seen_before_is_refused(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    examples[0]["id"] = "a2"
    assert_refused(write_source(format, examples), "an earlier record has the same id")


@pytest.mark.parametrize("format", FORMATS)
def test_a_record_without_id_is_named_by_its_position(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    for example in examples:
        del example["id"]
    source = write_source(format, [examples[2], examples[2], examples[2]])
    assert [sourced.row.id for sourced in read_source(source)] == ["row 1", "row 2", "row 3"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("split", ["test", "", None])
def test_an_unknown_split_is_refused(
    format: str, split: str | None, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    for example, name in zip(examples, ["train", split, "train"], strict=True):
        example["fold"] = name
    assert_refused(write_source(format, examples, split="fold"), f"split {split!r} is unknown", "'heldout'")


@pytest.mark.parametrize("format", FORMATS)
def test_a_unit_in_both_splits_is_refused_and_declared_splits_stand(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    for example, name in zip(examples, ["train", "heldout", "train"], strict=True):
        example["fold"] = name
    found = read_source(write_source(format, examples, split="fold"))
    assert [sourced.split for sourced in found] == ["train", "heldout", "train"]
    examples[1]["patient"] = "p1"
    assert_refused(write_source(format, examples, split="fold"), "its unit is in both splits")


@pytest.mark.parametrize("format", ["llava", "openai"])
def test_text_that_utf8_cannot_hold_is_refused(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    examples[1]["turns"][2] = ("assistant", "\ud800")
    assert_refused(write_source(format, examples), "half a surrogate pair")


def test_a_llava_record_without_a_place_for_its_image_is_refused(
    examples: list[Example], write_source: Callable[..., Source], picture: Callable[..., bytes]
) -> None:
    examples[1] |= {"turns": [("user", "which ?"), ("assistant", "two")], "pictures": [picture(9)]}
    assert_refused(write_source("llava", examples), "0 <image> marks for 1 images")


@pytest.mark.parametrize("format", FORMATS)
def test_of_many_bad_records_five_are_named_and_the_others_counted(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    many = [
        examples[2] | {"id": f"b{number}", "patient": None if number % 2 else "p"} for number in range(20)
    ]
    with pytest.raises(ValueError) as refusal:
        read_source(write_source(format, [*many, examples[0]]))
    message = str(refusal.value)
    assert ": 10 records cannot be used: record 'b1': " in message
    assert [name for name in (f"'b{number}'" for number in range(20)) if name in message] == [
        "'b1'", "'b3'", "'b5'", "'b7'", "'b9'",
    ]  # fmt: skip
    assert message.endswith("; and 5 more")
    assert_one_sentence(message)


@pytest.mark.parametrize("format", FORMATS)
def test_a_refusal_tells_no_text_of_a_conversation(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    examples[1]["turns"][1:] = [("user", "my diagnosis"), ("user", "is secret"), ("assistant", "hidden")]
    with pytest.raises(ValueError) as refusal:
        read_source(write_source(format, examples))
    assert not any(word in str(refusal.value) for word in ("diagnosis", "secret", "hidden"))


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_broken_or_empty_file_is_refused_in_one_sentence(
    format: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    source = write_source(format, examples)
    assert source.rows is not None
    for content in (b"\xff\xfe\x00broken", b"PAR1 cut", b"[" * 100_000, b"", b"[]", b"\n", b"7"):
        (source.path / source.rows).write_bytes(content)
        with pytest.raises(ValueError) as refusal:
            read_source(source)
        assert str(refusal.value).startswith(str(source.path))
        assert_one_sentence(str(refusal.value))
    (source.path / source.rows).unlink()
    with pytest.raises(ValueError, match="is not a file: set rows"):
        read_source(source)


@pytest.mark.parametrize("format", FORMATS)
def test_a_path_that_is_not_there_is_refused(format: str, tmp_path: Path) -> None:
    for path, rows in ((tmp_path / "no", None), (tmp_path / "no", "rows")):
        source = Source(
            path=path, rows=rows, format=format, unit="u", kind=None, split=None, on_bad_record="stop"
        )  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="does not exist: put the data there"):
            read_source(source)
    source = Source(
        path=tmp_path, rows=None, format=format, unit="u", kind=None, split=None, on_bad_record="stop"
    )  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is a folder without parquet files: set rows"):
        read_source(source)


@pytest.mark.parametrize("rows", ["../rows.json", "/etc/passwd", "", "a/../../b", "."])
def test_a_rows_file_outside_the_folder_is_refused(rows: str) -> None:
    with pytest.raises(ValueError, match="rows in section 'data' must name a file inside path"):
        Source(
            path=Path("data"),
            rows=rows,
            format="llava",
            unit="u",
            kind=None,
            split=None,
            on_bad_record="stop",
        )


def test_a_folder_of_shards_is_one_data_set_in_the_order_of_names(
    examples: list[Example], write_source: Callable[..., Source], tmp_path: Path
) -> None:
    source = write_source("messages", examples)
    assert source.rows is not None
    whole = pyarrow.parquet.read_table(source.path / source.rows)
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in (2, 0, 1):
        pyarrow.parquet.write_table(whole.slice(number, 1), shards / f"train-0000{number}-of-00003.parquet")
    found = Source(
        path=shards,
        rows=None,
        format="messages",
        unit="patient",
        kind="kind",
        split=None,
        on_bad_record="stop",
    )
    assert read_source(found) == read_source(source)


def test_equal_images_are_one_object(examples: list[Example], write_source: Callable[..., Source]) -> None:
    rows = read_source(write_source("messages", [examples[0], examples[0] | {"id": "again"}]))
    assert rows[0].row.images[0] is rows[1].row.images[0]


def test_a_source_without_kinds_has_one_kind(
    examples: list[Example], write_source: Callable[..., Source]
) -> None:
    assert {sourced.row.kind for sourced in read_source(write_source("llava", examples, kind=None))} == {
        "all"
    }


def test_a_kind_that_is_called_like_the_total_is_refused() -> None:
    from stages.records.fields import kind_of
    from stages.records.refusal import Unusable

    with pytest.raises(Unusable, match="the name of the total"):
        kind_of({"kind": "all"}, "kind")
    assert kind_of({}, None) == "all"
