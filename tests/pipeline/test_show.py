"""``dualpriv show`` prints stored results and needs no model to do so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.show import show_command
from stages.core.files import read_json, write_json
from tests.pipeline.conftest import REPOSITORY

SENTENCE = "For population 'toy' this model is (1.000, 1e-05)-differentially private per image."


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = {"accuracy": 0.5, "correct": 5, "rows": 10, "low": 0.2, "high": 0.8}
    tuned = {"accuracy": 0.75, "correct": 30, "rows": 40, "low": 0.6, "high": 0.9}
    kinds = ("all", "[red]kind", "digit")
    metrics = {"zero_shot": dict.fromkeys(kinds, found), "tuned": dict.fromkeys(kinds, tuned)}
    write_json(tmp_path / "data/evaluate/metrics.json", metrics)
    statement = {"sentence": SENTENCE, "epsilon": 1.0, "target_epsilon": 8.0, "within_target": True}
    write_json(tmp_path / "data/account/statement.json", statement)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_and_the_sentence_are_printed(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_command()
    printed = capsys.readouterr().out
    lines = [line.replace("\u2502", " ").split() for line in printed.splitlines()]
    assert ["digit", "50.0", "75.0", "40"] in lines
    assert ["[red]kind", "50.0", "75.0", "40"] in lines, "a kind is text, never markup"
    assert lines.index(["all", "50.0", "75.0", "40"]) > lines.index(["digit", "50.0", "75.0", "40"])
    assert SENTENCE in printed


def test_a_machine_reads_both_files_as_one_document(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_command(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"] == read_json(checkout / "data/evaluate/metrics.json")
    assert found["statement"] == read_json(checkout / "data/account/statement.json")


def test_noised_counts_are_shown_as_such(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noised = {"accuracy": 0.75, "correct": 30.1, "rows": 40.2, "low": 0.6, "high": 0.9}
    nothing = {"accuracy": None, "correct": 1.5, "rows": -2.0, "low": 0.0, "high": 1.0}
    found = {"digit": noised, "other": nothing, "all": noised}
    metrics = {"zero_shot": found, "tuned": found, "charge": {"release": "a" * 32}}
    write_json(checkout / "data/evaluate/metrics.json", metrics)
    show_command()
    printed = capsys.readouterr().out
    lines = [line.replace("\u2502", " ").split() for line in printed.splitlines()]
    assert "noised" in printed.splitlines()[0]
    assert ["digit", *2 * ["75.0", "(60.0", "to", "90.0)"], "about", "40"] in lines
    assert ["other", "-", "-", "about", "-2"] in lines


@pytest.mark.parametrize(("epsilon", "said"), [(None, "No privacy"), (9.0, "over the target of 8")])
def test_a_broken_promise_is_said(
    checkout: Path, capsys: pytest.CaptureFixture[str], epsilon: float | None, said: str
) -> None:
    statement = {"sentence": SENTENCE, "epsilon": epsilon, "target_epsilon": 8.0, "within_target": False}
    write_json(checkout / "data/account/statement.json", statement)
    show_command()
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["data/evaluate/metrics.json", "data/account/statement.json"])
def test_missing_evidence_is_one_sentence(checkout: Path, missing: str) -> None:
    (checkout / missing).unlink()
    with pytest.raises(ValueError, match=f"^{missing} is missing: run `dvc repro`"):
        show_command()


def test_nothing_heavy_is_loaded(checkout: Path) -> None:
    script = (
        "import sys; from pipeline.show import show_command; show_command(); print('LOADED', *sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    printed = run.stdout
    loaded = {name.partition(".")[0] for name in printed.partition("LOADED")[2].split()}
    assert not loaded & {"torch", "transformers", "peft", "numpy", "altair", "jinja2", "dvc", "prefect"}
