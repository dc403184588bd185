"""Every kind of bad record is told once, by its id and with a way out, and keeps none of its text."""

import copy
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models import picture
from pipeline.own_data.look import Look, look_at, show
from stages.records.source import Source

Record = dict[str, Any]


def good(number: int) -> Record:
    """Return a LLaVA record that can be used."""
    turns = [
        {"from": "human", "value": "<image>\nwhat does it show, secret question"},
        {"from": "gpt", "value": "secret answer"},
    ]
    return {
        "id": f"r{number}",
        "image": "scan.png",
        "patient": f"p{number // 2}",
        "fold": "train",
        "topic": "lung",
        "conversations": turns,
    }


def changed(**change: Any) -> Callable[[Record], None]:
    return lambda record: record.update(change)


def turn(index: int, **change: Any) -> Callable[[Record], None]:
    return lambda record: record["conversations"][index].update(change)


def without(key: str) -> Callable[[Record], None]:
    return lambda record: record.pop(key)


BAD: list[tuple[Callable[[Record], None], str]] = [
    (without("patient"), "no privacy unit in 'patient'"),
    (changed(patient="  "), "'patient' is empty"),
    (changed(patient=["a", "b"]), "'patient' names 2 privacy units"),
    (changed(patient=1.5), "'patient' is of type float"),
    (without("topic"), "no kind in 'topic'"),
    (changed(topic="all"), "'topic' is 'all', the name of the total"),
    (changed(fold="test"), "split 'test' is unknown"),
    (changed(conversations="hello"), "'conversations' is not a list of turns"),
    (changed(conversations=[]), "no assistant turn"),
    (turn(0, **{"from": "bot"}), "role 'bot' is unknown"),
    (turn(1, value="  "), "turn 2 (assistant) is empty"),
    (turn(1, value=7), "value is of type int"),
    (turn(1, value="see <image>"), "turn 2 (assistant) holds <image>"),
    (turn(0, value="no mark"), "0 <image> marks for 1 images"),
    (turn(0, value="<image> \ud800"), "value holds half a surrogate pair"),
    (changed(image="away.png"), "image 'away.png' is missing"),
    (changed(image="../outside.png"), "image '../outside.png' leads out of"),
    (changed(image="https://host/scan.png"), "is remote and nothing is fetched"),
    (changed(image=7), "image 7 is not the name of a file"),
    (changed(image="half.png"), "image 1 is truncated or corrupt"),
    (changed(image="bomb.png"), "image 1 has more than 64000000 pixels"),
    (changed(image="deep.png"), "image 1 has mode 'I;16', beyond 8-bit RGB"),
    (changed(image="notes.txt"), "image 1 is none of PNG"),
    (changed(id="r0"), "an earlier record has the same id"),
    (changed(patient="p0", fold="heldout"), "its unit is in both splits"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of pictures, most of them bad."""
    found = tmp_path / "scans"
    found.mkdir()
    (found / "scan.png").write_bytes(picture(0))
    (found / "half.png").write_bytes(picture(1)[:200])
    (found / "bomb.png").write_bytes(bomb())
    (found / "notes.txt").write_text("no picture")
    Image.new("I;16", (4, 4)).save(found / "deep.png")
    return found


def bomb() -> bytes:
    """Return a PNG that says it has 20,000 x 20,000 pixels."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def looked(folder: Path, records: list[Record]) -> Look:
    (folder / "rows.json").write_text(json.dumps(records))
    source = Source(
        path=folder,
        rows="rows.json",
        format="llava",
        unit="patient",
        kind="topic",
        split="fold",
        on_bad_record="stop",
    )
    return look_at(source)


def test_every_kind_of_bad_record_is_told_once_with_its_id_and_a_way_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [good(0), good(1)]
    for number, (change, _) in enumerate(BAD, 2):
        bad = copy.deepcopy(good(number))
        change(bad)
        records.append(bad)
    look = looked(folder, records)
    assert (look.rows, look.units, look.rows_per_unit) == (2, 1, (2,))
    show(look, rows_per_unit=1)
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("record ")]
    assert len(lines) == len(BAD) == 25
    for line, (bad, (_, reason)) in zip(lines, zip(records[2:], BAD, strict=True), strict=True):
        assert line.startswith(f"record '{bad.get('id')}': ") and reason in line
        assert line.endswith(")"), "a way out"
    assert "secret" not in printed
    assert "1 units: a step looks at 1 of their rows" in printed


def test_what_is_counted_is_what_is_there(folder: Path) -> None:
    (folder / "other.png").write_bytes(picture(2))
    records = [good(number) for number in range(7)]
    records[3] |= {"image": ["scan.png", "other.png"], "topic": "heart"}
    records[3]["conversations"][0]["value"] = "<image><image> which"
    look = looked(folder, records)
    assert (look.rows, look.images, look.kinds, look.problems) == (7, 8, 2, ())
    assert look.rows_per_unit == (1, 2, 2, 2) and look.units == 4
    assert look.image_bytes == len(picture(0)) + len(picture(2)), "an image that is shown again is one file"
