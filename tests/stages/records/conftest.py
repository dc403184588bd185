"""The same examples, written as a user of each format would write them."""

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from stages.records.source import Source

Example = dict[str, Any]
"""id, patient, kind, turns as (role, text with marks), pictures as bytes or names; other fields stay."""

LLAVA_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}


def png(shade: int, size: tuple[int, int] = (4, 4)) -> bytes:
    """Return a small PNG."""
    file = BytesIO()
    Image.new("RGB", size, (shade, 0, 255 - shade)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Make a small PNG of a shade."""
    return png


@pytest.fixture
def examples() -> list[Example]:
    """Return three good examples: one image and two turns, two images and four turns, text alone."""
    return [
        {
            "id": "a1",
            "patient": "p1",
            "kind": "digit",
            "turns": [("user", "<image>\nwhich digit ?"), ("assistant", "two")],
            "pictures": [png(1)],
        },
        {
            "id": "a2",
            "patient": "p2",
            "kind": "pair",
            "turns": [
                ("system", "be brief"),
                ("user", "<image>\nis it like\n<image>"),
                ("assistant", "no"),
                ("user", "why ?"),
                ("assistant", "one is redder"),
            ],
            "pictures": [png(2), png(200)],
        },
        {
            "id": "a3",
            "patient": "p1",
            "kind": "text",
            "turns": [("user", "how are you ?"), ("assistant", "well")],
            "pictures": [],
        },
    ]


@pytest.fixture
def write_source(tmp_path: Path) -> Callable[..., Source]:
    """Write examples in a format into a new folder and return the source."""

    def write(format: str, examples: list[Example], folder: str = "given", **changed: Any) -> Source:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        records = [WRITERS[format](example, path) for example in examples]
        rows = {"messages": "rows.parquet", "llava": "rows.json", "openai": "rows.jsonl"}[format]
        if format == "messages":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path / rows)
        elif format == "llava":
            (path / rows).write_text(json.dumps(records))
        else:
            (path / rows).write_text("".join(json.dumps(record) + "\n" for record in records))
        fields: dict[str, Any] = {
            "unit": "patient",
            "kind": "kind",
            "split": None,
            "on_bad_record": "stop",
        } | changed
        return Source(path=path, rows=rows, format=format, **fields)  # type: ignore[arg-type]

    return write


def _others(example: Example) -> Example:
    return {name: value for name, value in example.items() if name not in ("turns", "pictures")}


def _as_messages(example: Example, folder: Path) -> Example:
    images = [
        {"bytes": None, "path": entry} if isinstance(entry, str) else {"bytes": entry, "path": "x.png"}
        for entry in example["pictures"]
    ]
    turns = [{"role": role, "content": text} for role, text in example["turns"]]
    return _others(example) | {"messages": turns, "images": images}


def _as_llava(example: Example, folder: Path) -> Example:
    names = []
    for number, entry in enumerate(example["pictures"]):
        if isinstance(entry, bytes):
            name = f"{example.get('id')}-{number}.png"
            (folder / name).write_bytes(entry)
            entry = name
        names.append(entry)
    turns = [{"from": LLAVA_ROLES.get(role, role), "value": text} for role, text in example["turns"]]
    image = {0: {}, 1: {"image": names[0] if names else None}}.get(len(names), {"image": names})
    return _others(example) | {"conversations": turns} | image


def _as_openai(example: Example, folder: Path) -> Example:
    entries = iter(example["pictures"])
    turns = []
    for role, text in example["turns"]:
        if role == "user" and "<image>" in text and example["pictures"]:
            parts: list[Example] = []
            for line in text.split("\n"):
                entry = next(entries, None) if line == "<image>" else None
                if entry is None:
                    parts.append({"type": "text", "text": line})
                else:
                    parts.append({"type": "image_url", "image_url": {"url": _url(entry)}})
            turns.append({"role": role, "content": parts})
        else:
            turns.append({"role": role, "content": text})
    return _others(example) | {"messages": turns}


def _url(entry: bytes | str) -> str:
    return entry if isinstance(entry, str) else "data:image/png;base64," + base64.b64encode(entry).decode()


WRITERS: dict[str, Callable[[Example, Path], Example]] = {
    "messages": _as_messages,
    "llava": _as_llava,
    "openai": _as_openai,
}
