"""Every family runs from its records to its report when ``model.path`` names it."""

import json
import shutil
from pathlib import Path

import pytest
from checkout import dvc

from benchmarks.tiny_directories import TINY, write_directory
from stages.records.encoded import read_encoded


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TINY))
def test_a_family_runs_from_ingest_to_report(name: str, encoded_checkout: Path) -> None:
    shutil.rmtree(encoded_checkout / "models/pretrained")
    write_directory(name, encoded_checkout / "models/pretrained")
    dvc(encoded_checkout, "repro")
    encoded = read_encoded(encoded_checkout / "data/encoded/train")
    assert 0 < encoded.features.slots_I.max() <= 16
    statement = json.loads((encoded_checkout / "data/account/statement.json").read_text())
    assert 0 < statement["epsilon"] <= 8.0
    report = (encoded_checkout / "data/report/report.html").read_text()
    assert "<svg" in report
    shown = dvc(encoded_checkout, "plots", "show", "--json")
    for plot in ("importance.csv", "layers.png", "frontier.csv", "patches.png"):
        assert plot in shown.stdout, plot
