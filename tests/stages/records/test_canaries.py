"""Canaries are functions of public values; who is planted hangs on the population's key alone."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from models import rows
from stages.ledger.population_key import PopulationKey
from stages.privacy.canary_settings import CanarySettings
from stages.records.canaries import KIND, CanaryText, canary_rows, is_planted, planned_canaries
from stages.records.row import IMAGE, Message, Row
from stages.records.store import read_rows, write_rows

TEXT = CanaryText(questions=("what is it ?", "which one ?"), words=("blue", "four", "left", "ring"))


def test_equal_arguments_give_equal_rows_and_others_give_others() -> None:
    made = canary_rows(TEXT, 20, rows_per_unit=2, length=5, seed=3)
    assert made == canary_rows(TEXT, 20, rows_per_unit=2, length=5, seed=3)
    assert made[:20] == canary_rows(TEXT, 10, rows_per_unit=2, length=5, seed=3), "more leave the first alone"
    for other in (
        canary_rows(TEXT, 20, rows_per_unit=2, length=5, seed=4),
        canary_rows(TEXT, 20, rows_per_unit=2, length=5, seed=3, name="else"),
    ):
        assert not {row.images for row in other} & {row.images for row in made}


def test_a_unit_has_one_image_and_one_answer_of_public_words() -> None:
    made = canary_rows(TEXT, 50, rows_per_unit=3, length=4, seed=0)
    assert len({row.id for row in made}) == 150 and len({row.unit for row in made}) == 50
    assert {row.kind for row in made} == {KIND}
    for first, second, third in zip(made[::3], made[1::3], made[2::3], strict=True):
        assert first.messages == second.messages == third.messages and first.images == third.images
        question, answer = first.messages
        assert question.content.removeprefix(IMAGE) in TEXT.questions
        assert len(answer.content.split()) == 4 and set(answer.content.split()) <= set(TEXT.words)
    assert len({row.images for row in made}) == 50
    assert len({row.messages[1].content for row in made}) > 40


def test_their_images_are_images_and_their_rows_are_rows(tmp_path) -> None:
    made = canary_rows(TEXT, 3, rows_per_unit=1, length=2, seed=0)
    for row in made:
        assert Image.open(io.BytesIO(row.images[0])).size == (64, 64)
    write_rows(tmp_path / "canaries", made, None)
    assert read_rows(tmp_path / "canaries") == made


def test_text_comes_from_public_records_without_marks() -> None:
    text = CanaryText.of(rows(4, rows_per_unit=2))
    assert text.questions and text.words
    assert not any(IMAGE in piece or not piece for piece in (*text.questions, *text.words))
    with pytest.raises(ValueError, match="the public records hold no question"):
        CanaryText.of([])


def test_words_are_those_that_public_questions_use_and_answers_do_not() -> None:
    def asked(question: str, answer: str) -> Row:
        turns = (Message("user", f"{IMAGE}{question}"), Message("assistant", answer))
        return Row(question, "unit", "kind", turns, (b"",))

    text = CanaryText.of([asked("is it red or blue ?", "red"), asked("is it ?", "blue it")])
    assert text.words == ("?", "is", "or") and text.questions == ("is it ?", "is it red or blue ?")
    everything = CanaryText.of([asked("red ?", "red"), asked("red", "?")])
    assert everything.words == ("?", "red"), "where too few are unused, all are used"


def test_settings_decide_how_many_and_which_and_none_need_no_words() -> None:
    settings = CanarySettings(count=5, rows_per_unit=3, words=2, guessed=1.0, seed=7)
    made = planned_canaries(settings, rows(4))
    assert len(made) == 15 and [row.unit for row in made[::3]] == [
        f"canary-7-{number}" for number in range(5)
    ]
    assert all(len(row.messages[1].content.split()) == 2 for row in made)
    others = planned_canaries(replace(settings, seed=8), rows(4))
    assert not {row.unit for row in made} & {row.unit for row in others}, (
        "other coins, for these hang on names"
    )
    assert not {row.images for row in made} & {row.images for row in others}
    assert planned_canaries(replace(settings, count=0), []) == []


def test_coins_are_fair_hang_on_the_key_and_on_nobody_else() -> None:
    keys = [PopulationKey(bytes([number] * 32)) for number in range(2)]
    units = [f"canary-{number}" for number in range(4000)]
    coins = np.array([[is_planted(unit, key) for unit in units] for key in keys])
    assert coins.tolist() == [[is_planted(unit, key) for unit in units] for key in keys]
    assert np.abs(coins.mean(axis=1) - 0.5).max() < 0.04
    assert abs(np.corrcoef(coins)[0, 1]) < 0.08
