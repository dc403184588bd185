"""Canaries are functions of public values; who is planted hangs on the population's key alone."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from models import picture, rows
from stages.ledger.population_key import PopulationKey
from stages.privacy.canary_settings import CanarySettings
from stages.records.canaries import KIND, CanaryParts, canary_rows, is_planted, planned_canaries
from stages.records.row import IMAGE, Message, Row
from stages.records.store import read_rows, write_rows

PARTS = CanaryParts(
    questions=("what is it ?", "which one ?"),
    words=("blue", "four", "left", "ring"),
    images=tuple(picture(number) for number in range(9)),
)


def test_equal_arguments_give_equal_rows_and_others_give_others() -> None:
    made = canary_rows(PARTS, 20, rows_per_unit=2, length=5, seed=3)
    assert made == canary_rows(PARTS, 20, rows_per_unit=2, length=5, seed=3)
    assert made[:20] == canary_rows(PARTS, 10, rows_per_unit=2, length=5, seed=3), (
        "more leave the first alone"
    )
    for other in (
        canary_rows(PARTS, 20, rows_per_unit=2, length=5, seed=4),
        canary_rows(PARTS, 20, rows_per_unit=2, length=5, seed=3, name="else"),
    ):
        assert not {row.images for row in other} & {row.images for row in made}


def test_a_unit_has_one_image_and_one_answer_of_public_words() -> None:
    made = canary_rows(PARTS, 50, rows_per_unit=3, length=4, seed=0)
    assert len({row.id for row in made}) == 150 and len({row.unit for row in made}) == 50
    assert {row.kind for row in made} == {KIND}
    for first, second, third in zip(made[::3], made[1::3], made[2::3], strict=True):
        assert first.messages == second.messages == third.messages and first.images == third.images
        question, answer = first.messages
        assert question.content.removeprefix(IMAGE) in PARTS.questions
        assert len(answer.content.split()) == 4 and set(answer.content.split()) <= set(PARTS.words)
    assert len({row.images for row in made}) == 50
    assert len({row.messages[1].content for row in made}) > 40


def test_their_images_are_quarters_of_public_images_and_none_of_these(tmp_path) -> None:
    made = canary_rows(PARTS, 30, rows_per_unit=1, length=2, seed=0)
    known = {quarter for image in PARTS.images for quarter in quarters(image)}
    for row in made:
        assert set(quarters(row.images[0])) <= known and row.images[0] not in PARTS.images
    write_rows(tmp_path / "canaries", made, None)
    assert read_rows(tmp_path / "canaries") == made


def quarters(image: bytes) -> list[bytes]:
    """Return the quarters of a picture of 32 x 32 pixels, and each flipped in every way."""
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    found = []
    for flipped in (pixels, pixels[::-1], pixels[:, ::-1], pixels[::-1, ::-1]):
        found += [flipped[y : y + 16, x : x + 16].tobytes() for x in (0, 16) for y in (0, 16)]
    return found


@pytest.mark.parametrize(
    ("mode", "size"), [("L", (31, 9)), ("RGBA", (1, 1)), ("P", (900, 300)), ("1", (2, 5))]
)
def test_public_images_of_any_mode_and_size_make_canaries(mode: str, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    (row,) = canary_rows(replace(PARTS, images=(file.getvalue(),)), 1, rows_per_unit=1, length=1, seed=0)
    made = Image.open(io.BytesIO(row.images[0]))
    assert made.mode == "RGB" and max(made.size) <= 512 and min(made.size) >= 2


def test_text_comes_from_public_records_without_marks() -> None:
    text = CanaryParts.of(rows(4, rows_per_unit=2))
    assert text.questions and text.words and text.images == tuple(row.images[0] for row in rows(4))
    assert not any(IMAGE in piece or not piece for piece in (*text.questions, *text.words))
    with pytest.raises(ValueError, match="the public records hold no question about an image"):
        CanaryParts.of([])
    with pytest.raises(ValueError, match="no question about an image"):
        CanaryParts.of([replace(row, images=()) for row in rows(2)])


def test_words_are_those_that_public_questions_use_and_answers_do_not() -> None:
    def asked(question: str, answer: str) -> Row:
        turns = (Message("user", f"{IMAGE}{question}"), Message("assistant", answer))
        return Row(question, "unit", "kind", turns, (b"",))

    text = CanaryParts.of([asked("is it red or blue ?", "red"), asked("is it ?", "blue it")])
    assert text.words == ("?", "is", "or") and text.questions == ("is it ?", "is it red or blue ?")
    everything = CanaryParts.of([asked("red ?", "red"), asked("red", "?")])
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
