"""What ``dualpriv predict`` is asked: one image, every image of a folder, or the lines of a JSONL file."""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from stages.records import openai
from stages.records.fields import Record, checked_text
from stages.records.json_text import read_text
from stages.records.picture import check_picture, read_picture_file
from stages.records.refusal import Unusable, first_sentence, quote, refuse_records
from stages.records.row import IMAGE, Message

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
"""How the images of a folder are told from its other files, in capitals too."""
_EMBEDDED = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


class Reads(Protocol):
    """Read the bytes of an image."""

    def __call__(self) -> bytes:
        """Return them."""


@dataclass(frozen=True)
class Asked:
    """A conversation that waits for an answer; its images are read when they are needed."""

    said: dict[str, Any]
    """What is written beside the answer, to know what it answers."""
    messages: tuple[Message, ...]
    """With one mark for each image; the last one is the user's."""
    images: tuple[Reads, ...]

    @property
    def question(self) -> str:
        """Return the last turn without the marks of its images."""
        return self.messages[-1].content.replace(IMAGE, "").strip()

    def read(self) -> tuple[bytes, ...]:
        """Return its images, each of which decodes whole; anything else is a ValueError."""
        return tuple(check_picture(image(), f"image {number}") for number, image in enumerate(self.images, 1))


def about(image: Path, question: str) -> list[Asked]:
    """Ask one question about an image file, or about every image below a folder in the order of paths."""
    if not image.is_dir():
        read_picture(_named(image))
        return [_one(image, question)]
    files = sorted(path for path in image.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise ValueError(f"{image} holds no image: none of its files ends in {', '.join(SUFFIXES)}")
    refuse_records(image, [problem for file in files if (problem := _problem(file)) is not None])
    return [_one(file, question) for file in files]


def lines_of(file: Path, image: Path | None) -> list[Asked]:
    """Return what the lines of a JSONL file ask; every bad line is named by its number in one ValueError.

    A line is ``{"image": ..., "question": ...}``, whose image is a path from the file's folder on or a
    ``data:`` URL, or, where it names none, the file ``image``. Or it is a line of OpenAI's chat format
    (stages/records/openai.py), whose last user turn is answered and whose last answer, if it has one, is
    not looked at.
    """
    if image is not None:
        read_picture(_named(image))
    found: list[Asked] = []
    problems: list[str] = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            asked = _line(_record(line), number, file.parent, image)
            asked.read()
            found.append(asked)
        except Unusable as reason:
            problems.append(f"line {number}: {reason}")
    refuse_records(file, problems)
    if not found:
        raise ValueError(f"{file} holds no line: write one JSON object a line")
    return found


def read_picture(image: Path) -> bytes:
    """Return the bytes of an image file that decodes whole; anything else is a ValueError."""
    name = f"image {quote(str(image))}"
    if not image.is_file():
        raise Unusable(f"{name} is not a file", "name an image")
    try:
        content = image.read_bytes()
    except OSError as error:
        raise Unusable(f"{name} cannot be read, {error.strerror}", "make it readable") from None
    return check_picture(content, name)


def _record(line: str) -> Record:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"it is not valid JSON, {first_sentence(error)}", "repair it") from None
    if not isinstance(value, dict):
        raise Unusable("it is not an object", "write one JSON object a line")
    return value


def _one(image: Path, question: str) -> Asked:
    said = {"image": image.as_posix(), "question": question}
    return Asked(said, (Message("user", IMAGE + question),), (partial(read_picture, image),))


def _line(record: Record, number: int, folder: Path, image: Path | None) -> Asked:
    said: dict[str, Any] = {"line": number}
    if record.get("id") is not None:
        said["id"] = _id(record["id"])
    if "messages" in record:
        return _chat(record, said)
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise Unusable("'question' is no text or empty", "ask something about the image")
    if IMAGE in checked_text(question, "'question'"):
        raise Unusable(f"'question' holds {IMAGE}", "leave it out: the image stands before the question")
    named = record.get("image")
    if isinstance(named, str):
        checked_text(named, "'image'")
    if named is None and image is None:
        raise Unusable("it names no image", "name one in 'image', or give --image for all such lines")
    if isinstance(named, str) and (start := _EMBEDDED.match(named)):
        reads: Reads = partial(_decoded, named[start.end() :])
    else:
        said["image"] = named if named is not None else str(image)
        reads = partial(read_picture_file, folder, named) if named is not None else _file(image)
    return Asked(said | {"question": question}, (Message("user", IMAGE + question),), (reads,))


def _chat(record: Record, said: dict[str, Any]) -> Asked:
    """Read a chat through the reader of training data, which wants an answer at its end."""
    turns = record["messages"]
    if not isinstance(turns, list) or not turns:
        raise Unusable("'messages' is not a list of turns", "write one mapping a turn")
    if not (isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant"):
        turns = [*turns, {"role": "assistant", "content": "?"}]
    whole = openai.read({"messages": turns}, None)
    asked = Asked(said, whole.messages[:-1], tuple(partial(bytes, image) for image in whole.images))
    return Asked(said | {"question": asked.question}, asked.messages, asked.images)


def _id(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return checked_text(value, "'id'")


def _named(image: Path) -> Path:
    """Return ``image``, whose name is written beside an answer and so is text that UTF-8 can hold."""
    try:
        str(image).encode()
    except UnicodeEncodeError:
        raise Unusable(f"the name {quote(str(image))} is not UTF-8", "rename it") from None
    return image


def _file(image: Path | None) -> Reads:
    assert image is not None
    return partial(read_picture, image)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("'image' is a data: URL that is not base64", "encode its bytes again") from None


def _problem(file: Path) -> str | None:
    try:
        read_picture(_named(file))
    except Unusable as reason:
        return str(reason)
    return None


def require_no_mark(asked: Sequence[Asked], mark: str) -> None:
    """Refuse a text that holds ``mark``, by which the model at hand writes an image."""
    for each in asked:
        if mark != IMAGE and any(mark in message.content for message in each.messages):
            where = each.said.get("line")
            name = f"line {where}" if where is not None else "the question"
            raise ValueError(f"{name} must not contain '{mark}': it stands for an image of this model")
