"""The demonstration record sets are what their schema and their privacy unit promise."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest

from stages.demonstration import images, questions, record_set
from stages.demonstration.questions import LONGEST_QUESTION, vocabulary, words

DEMONSTRATION = Path(__file__).parents[3] / "data" / "demonstration"


@pytest.fixture(scope="module")
def private() -> list[record_set.Record]:
    pytest.importorskip("mlxtend")
    return list(record_set.private_records(3, limit=40))


@pytest.fixture(scope="module")
def public() -> list[record_set.Record]:
    return list(record_set.public_records(3, limit=60, scene_count=60))


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("once", "again"):
        record_set.write(record_set.public_records(3, limit=20, scene_count=20), tmp_path / name)
    record_set.write(record_set.public_records(4, limit=20, scene_count=20), tmp_path / "other")
    assert (tmp_path / "once").read_bytes() == (tmp_path / "again").read_bytes()
    assert (tmp_path / "once").read_bytes() != (tmp_path / "other").read_bytes()


def test_ids_are_unique_and_a_unit_is_an_image_not_a_row(private: list[record_set.Record]) -> None:
    assert len({record.id for record in private}) == len(private)
    kinds = {record.image_id: Counter() for record in private}
    pictures = {record.image_id: set() for record in private}
    for record in private:
        kinds[record.image_id][record.kind] += 1
        pictures[record.image_id].add(record.images[0]["bytes"])
    assert len(kinds) == 40
    assert all(counts == {"digit": 1, "parity": 1, "comparison": 1} for counts in kinds.values())
    assert all(len(shown) == 1 for shown in pictures.values())


def test_answers_of_a_digit_image_agree_with_its_digit(private: list[record_set.Record]) -> None:
    digit_of = {
        record.image_id: questions.NUMBERS.index(record.messages[1]["content"])
        for record in private
        if record.kind == "digit"
    }
    for record in private:
        digit, answer = digit_of[record.image_id], record.messages[1]["content"]
        asked = words(record.messages[0]["content"].removeprefix("<image>\n"))
        if record.kind == "parity":
            assert answer == ("odd" if digit % 2 else "even")
        if record.kind == "comparison":
            threshold = next(questions.NUMBERS.index(word) for word in asked if word in questions.NUMBERS)
            is_larger = not {"smaller", "less"} & set(asked)
            assert answer == ("yes" if (digit > threshold if is_larger else digit < threshold) else "no")


def test_every_question_is_short_and_every_word_is_in_the_public_vocabulary(
    private: list[record_set.Record], public: list[record_set.Record]
) -> None:
    known = set(vocabulary())
    for record in [*private, *public]:
        user, assistant = record.messages
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert user["content"].startswith("<image>\n")
        asked = words(user["content"].removeprefix("<image>\n"))
        assert len(asked) <= LONGEST_QUESTION
        assert {*asked, assistant["content"]} <= known
        assert images.decode_png(record.images[0]["bytes"]).shape == (32, 32, 3)


def test_the_vocabulary_is_read_off_the_templates_not_off_records() -> None:
    assert {*questions.NUMBERS, *questions.SHAPES, "yes", "no", "odd", "even", "?"} <= set(vocabulary())
    assert not any("{" in word for word in vocabulary())


@pytest.mark.parametrize(("name", "pictures"), [("private", 5000), ("public", 1797 + 1500)])
def test_the_committed_files_have_the_layout_and_stay_small(name: str, pictures: int) -> None:
    path = DEMONSTRATION / f"{name}.parquet"
    table = pyarrow.parquet.read_table(path)
    assert table.schema.equals(record_set.SCHEMA)
    assert len(set(table["image_id"].to_pylist())) == pictures
    assert len(set(table["id"].to_pylist())) == table.num_rows >= 3 * pictures
    assert path.stat().st_size <= 3e6
