"""``dualpriv predict`` answers as the library does, and refuses a bad picture in one sentence."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from models import picture
from pipeline.predict import predict_command, read_picture
from stages.core.files import write_json
from tests.pipeline.conftest import REPOSITORY
from tests.stages.reporting.finished_run import write_run

COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()", "predict"]


@pytest.fixture(scope="module")
def finished(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predict") / "checkout"
    write_run(root, tiny_llava)
    (root / "picture.png").write_bytes(picture(3))
    return root


@pytest.fixture
def checkout(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def test_the_answer_is_the_librarys(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stages.evaluation.answer import answer
    from stages.trainable.adapters import load_adapter
    from stages.vlm.family import load
    from stages.vlm.selection import Rule

    predict_command(Path("picture.png"), "odd or even ?")
    loaded = load(Path("models/backbone"))
    tuned = replace(loaded, model=load_adapter(loaded.model, Path("models/adapter"), loaded.family))
    rule = Rule(select="dominant_contextual", merge="cluster", layer=2, dominant=6, contextual=3)
    assert capsys.readouterr().out == answer(tuned, picture(3), "odd or even ?", rule) + "\n"


def predict(*options: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([*COMMAND, *options], env=environment, capture_output=True, text=True)


def bomb(path: Path) -> None:
    Image.new("1", (9000, 9000)).save(path, "PNG")


def broken(path: Path) -> None:
    path.write_bytes(picture(1)[:200])


def text(path: Path) -> None:
    path.write_text("not a picture\n")


@pytest.mark.parametrize(
    ("make", "said"),
    [(bomb, "more than 64000000 pixels"), (broken, "truncated or corrupt"), (text, "is none of PNG"),
     (Path.mkdir, "is not a file"), (lambda path: None, "is not a file")],
    ids=["bomb", "broken", "text", "folder", "missing"],
)  # fmt: skip
def test_a_bad_picture_is_one_sentence(tmp_path: Path, make: object, said: str) -> None:
    assert callable(make)
    make(tmp_path / "picture.png")
    with pytest.raises(ValueError, match=said) as refused:
        read_picture(tmp_path / "picture.png")
    assert "picture.png" in str(refused.value) and "\n" not in str(refused.value)


def test_the_command_refuses_a_bad_picture_before_it_loads_a_model(checkout: Path) -> None:
    (checkout / "bad.png").write_bytes(picture(1)[:200])
    answer = predict("--image", "bad.png", "--question", "which digit is this ?")
    assert answer.returncode == 2
    assert answer.stderr.startswith("dualpriv: image 'bad.png' is truncated or corrupt")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "given", [("--image", "picture.png"), ("--question", "odd ?"), ("picture.png", "odd ?")]
)
def test_both_options_are_required(checkout: Path, given: tuple[str, ...]) -> None:
    answer = predict(*given)
    assert answer.returncode == 2
    assert "Missing option" in answer.stderr


def test_a_checkout_that_was_never_run_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picture.png").write_bytes(picture(3))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^models/backbone is missing: run `dvc repro`"):
        predict_command(Path("picture.png"), "odd or even ?")


def test_a_broken_calibration_is_named(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipeline.predict.PRUNING", tmp_path / "pruning.json")
    with pytest.raises(ValueError, match=r"pruning\.json is missing"):
        predict_command(Path("picture.png"), "odd or even ?")
    write_json(tmp_path / "pruning.json", {"chosen": {"layer": 9, "dominant": 6, "contextual": 3}})
    with pytest.raises(ValueError, match="layer 9 is not among the encoder layers"):
        predict_command(Path("picture.png"), "odd or even ?")
