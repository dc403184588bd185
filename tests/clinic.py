"""A folder with small LLaVA data, private and public, for stage ingest."""

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ruamel.yaml import YAML

Record = dict[str, Any]


def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory with good private and public LLaVA data and its params.yaml; go there."""
    for name, unit in (("private", "patient"), ("public", "volunteer")):
        (tmp_path / name).mkdir()
        picture = BytesIO()
        Image.new("RGB", (4, 4), "red").save(picture, "PNG")
        (tmp_path / name / "red.png").write_bytes(picture.getvalue())
        write_records(tmp_path / name, [record(number, f"{unit} {number // 2}") for number in range(80)])
    (tmp_path / "private" / "salt").write_bytes(os.urandom(32))
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def record(number: int, unit: str) -> Record:
    """Return a LLaVA record that shows ``red.png``."""
    turns = [{"from": "human", "value": f"<image>\nquestion {number}"}, {"from": "gpt", "value": "red"}]
    return {"id": f"r{number}", "image": "red.png", "patient": unit, "conversations": turns}


def write_records(folder: Path, records: list[Record]) -> None:
    """Write ``rows.json``."""
    (folder / "rows.json").write_text(json.dumps(records))


def write_params(
    folder: Path, *, heldout: float = 0.3, fold: str | None = None, canaries: int = 0, **population: Any
) -> None:
    """Write params.yaml; ``fold`` is the private split field, further arguments change the population."""
    source = {
        "rows": "rows.json",
        "format": "llava",
        "unit": "patient",
        "kind": None,
        "split": None,
        "on_bad_record": "stop",
    }
    data = {
        "private": {"path": "private"} | source | {"split": fold},
        "public": {"path": "public"} | source,
        "heldout": heldout,
    }
    declared = {"name": "clinic", "public": False, "max_units": 50, "unit": "patient"} | population
    ledger = {"url": None, "limit": {"epsilon": 12.0, "delta": 1e-5}}
    planted = {"count": canaries, "rows_per_unit": 2, "words": 3, "guessed": 0.5, "seed": 0}
    sections = {"data": data, "population": declared, "canaries": planted, "ledger": ledger}
    YAML().dump(sections, folder / "params.yaml")
