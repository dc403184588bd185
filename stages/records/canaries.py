"""Canary units: images that nobody drew and random answers, planted to be looked for after training.

Everything about them is public but the coins, which decide who joins the training units: they hang on the
population's secret key.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stages.ledger.population_key import PopulationKey
from stages.privacy.canary_settings import CanarySettings
from stages.records.row import IMAGE, Message, Row

KIND = "canary"
_BLOCKS, _PIXELS = 8, 8


@dataclass(frozen=True, kw_only=True)
class CanaryText:
    """What questions and answers of canaries are made of: both from public records."""

    questions: tuple[str, ...]
    words: tuple[str, ...]
    """Words that public questions use and public answers do not, where there are two of them; else all."""

    @classmethod
    def of(cls, public: Sequence[Row]) -> "CanaryText":
        """Read questions and words off public records; a ValueError where there are none."""
        asked, answered = (_said(public, role) for role in ("user", "assistant"))
        questions = {text.strip() for text in asked} - {""}
        words_asked, words_answered = (
            {word for text in said for word in text.split()} for said in (asked, answered)
        )
        unused = words_asked - words_answered
        words = unused if len(unused) > 1 else words_asked | words_answered
        if not questions or not words:
            raise ValueError(
                "the public records hold no question to make canaries of: give some, or set canaries.count "
                "to 0"
            )
        return cls(questions=tuple(sorted(questions)), words=tuple(sorted(words)))


def planned_canaries(settings: CanarySettings, public: Sequence[Row]) -> list[Row]:
    """Return the rows of all canaries, planted or not: a function of the settings and of public records."""
    if not settings.count:
        return []
    return canary_rows(
        CanaryText.of(public),
        settings.count,
        rows_per_unit=settings.rows_per_unit,
        length=settings.words,
        seed=settings.seed,
        name=f"{KIND}-{settings.seed}",
    )


def canary_rows(
    text: CanaryText, count: int, *, rows_per_unit: int, length: int, seed: int, name: str = KIND
) -> list[Row]:
    """Return ``count`` units of ``rows_per_unit`` equal rows, one image, an answer of ``length`` words.

    A function of its arguments, all of them public.

    >>> text = CanaryText(questions=("which digit is this ?",), words=("red", "seven"))
    >>> [row.unit for row in canary_rows(text, 2, rows_per_unit=1, length=3, seed=0)]
    ['canary-0', 'canary-1']
    """
    found = []
    for number in range(count):
        dice = np.random.default_rng([seed, number, *name.encode()])
        question = text.questions[dice.integers(len(text.questions))]
        answer = " ".join(text.words[index] for index in dice.integers(len(text.words), size=length))
        turns = (Message("user", f"{IMAGE}{question}"), Message("assistant", answer))
        image, unit = _image(dice), f"{name}-{number}"
        found += [Row(f"{unit}-{row}", unit, KIND, turns, (image,)) for row in range(rows_per_unit)]
    return found


def is_planted(unit: str, key: PopulationKey) -> bool:
    """Tell whether a canary joins the training units: a fair coin that hangs on the key and its name."""
    return key.fraction("canary", unit.encode()) < 0.5


def _said(rows: Sequence[Row], role: str) -> set[str]:
    """Return what is said in a role, without the marks of images."""
    return {turn.content.replace(IMAGE, " ") for row in rows for turn in row.messages if turn.role == role}


def _image(dice: np.random.Generator) -> bytes:
    blocks = dice.integers(256, size=(_BLOCKS, _BLOCKS, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)).save(file, "PNG")
    return file.getvalue()
