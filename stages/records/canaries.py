"""Canary units: images that nobody drew and random answers, planted to be looked for after training.

An image is put together of quarters of public ones, for a frozen tower sees little difference between images
that are like none it knows. Everything about canaries is public but the coins, which decide who joins the
training units: they hang on the population's secret key.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from stages.ledger.population_key import PopulationKey
from stages.privacy.canary_settings import CanarySettings
from stages.records.row import IMAGE, Message, Row

KIND = "canary"
_LONGEST = 512
"""Pixels of a canary's longer side at most."""


@dataclass(frozen=True, kw_only=True)
class CanaryParts:
    """What images, questions and answers of canaries are made of: all from public records."""

    questions: tuple[str, ...]
    words: tuple[str, ...]
    """Words that public questions use and public answers do not, where there are two of them; else all."""
    images: tuple[bytes, ...]

    @classmethod
    def of(cls, public: Sequence[Row]) -> "CanaryParts":
        """Take them from public records; a ValueError where there are none."""
        asked, answered = (_said(public, role) for role in ("user", "assistant"))
        questions = {text.strip() for text in asked} - {""}
        words_asked, words_answered = (
            {word for text in said for word in text.split()} for said in (asked, answered)
        )
        unused = words_asked - words_answered
        words = unused if len(unused) > 1 else words_asked | words_answered
        images = dict.fromkeys(image for row in public for image in row.images)
        if not questions or not words or not images:
            raise ValueError(
                "the public records hold no question about an image to make canaries of: give some, or set "
                "canaries.count to 0"
            )
        return cls(questions=tuple(sorted(questions)), words=tuple(sorted(words)), images=tuple(images))


def planned_canaries(settings: CanarySettings, public: Sequence[Row]) -> list[Row]:
    """Return the rows of all canaries, planted or not: a function of the settings and of public records."""
    if not settings.count:
        return []
    return canary_rows(
        CanaryParts.of(public),
        settings.count,
        rows_per_unit=settings.rows_per_unit,
        length=settings.words,
        seed=settings.seed,
        name=f"{KIND}-{settings.seed}",
    )


def canary_rows(
    parts: CanaryParts, count: int, *, rows_per_unit: int, length: int, seed: int, name: str = KIND
) -> list[Row]:
    """Return ``count`` units of ``rows_per_unit`` equal rows, one image, an answer of ``length`` words.

    A function of its arguments, all of them public.
    """
    found = []
    for number in range(count):
        dice = np.random.default_rng([seed, number, *name.encode()])
        question = parts.questions[dice.integers(len(parts.questions))]
        answer = " ".join(parts.words[index] for index in dice.integers(len(parts.words), size=length))
        turns = (Message("user", f"{IMAGE}{question}"), Message("assistant", answer))
        image, unit = _image(parts.images, dice), f"{name}-{number}"
        found += [Row(f"{unit}-{row}", unit, KIND, turns, (image,)) for row in range(rows_per_unit)]
    return found


def is_planted(unit: str, key: PopulationKey) -> bool:
    """Tell whether a canary joins the training units: a fair coin that hangs on the key and its name."""
    return key.fraction("canary", unit.encode()) < 0.5


def _said(rows: Sequence[Row], role: str) -> set[str]:
    """Return what is said in a role, without the marks of images."""
    return {turn.content.replace(IMAGE, " ") for row in rows for turn in row.messages if turn.role == role}


def _image(images: Sequence[bytes], dice: np.random.Generator) -> bytes:
    """Return a PNG of the size of a public image: each quarter that of some public image, flipped or not."""
    chosen = [_opened(images[index]) for index in dice.integers(len(images), size=4)]
    smaller = chosen[0].copy()
    smaller.thumbnail((_LONGEST, _LONGEST))
    width, height = (max(2, side) for side in smaller.size)
    made = Image.new("RGB", (width, height))
    for quarter, (piece, flips) in enumerate(zip(chosen, dice.integers(4, size=4), strict=True)):
        piece = piece.resize((width, height))
        piece = ImageOps.mirror(piece) if flips & 1 else piece
        piece = ImageOps.flip(piece) if flips & 2 else piece
        left, top = width // 2 * (quarter % 2), height // 2 * (quarter // 2)
        right, bottom = (width if left else width // 2), (height if top else height // 2)
        made.paste(piece.crop((left, top, right, bottom)), (left, top))
    file = io.BytesIO()
    made.save(file, "PNG")
    return file.getvalue()


def _opened(image: bytes) -> Image.Image:
    with Image.open(io.BytesIO(image)) as opened:
        return opened.convert("RGB")
