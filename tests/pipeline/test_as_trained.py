"""predict and export work only where images are still seen as the model saw them in training."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.as_trained import require_as_trained
from pipeline.export import export_command
from pipeline.predict import Request, predict_command
from stages.core.params import read_params

ROOT = Path(__file__).parents[2]
PRUNING, BACKBONE = Path("data/calibrate/pruning.json"), Path("models/backbone")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what predict reads of this repository's own run, which DVC recorded; its adapter apart."""
    for file in ("params.yaml", "dvc.lock", PRUNING):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, tmp_path / file)
    shutil.copytree(ROOT / "models/pretrained", tmp_path / BACKBONE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(file: str, old: str, new: str) -> Any:
    def change() -> None:
        text = Path(file).read_text()
        assert text.count(old) == 1, old
        Path(file).write_text(text.replace(old, new))

    return change


def record(stage: str, path: str, digest: str) -> Any:
    """Return a change of dvc.lock as DVC writes it after one stage ran again."""

    def change() -> None:
        yaml = YAML(typ="safe", pure=True)
        lock = yaml.load(Path("dvc.lock"))
        [out] = [out for out in lock["stages"][stage]["outs"] if out["path"] == path]
        out["md5"] = digest
        yaml.dump(lock, Path("dvc.lock"))

    return change


def calibrated_anew() -> None:
    found = json.loads(PRUNING.read_text())
    found["chosen"]["dominant"] += 1
    PRUNING.write_text(json.dumps(found))


def test_what_dvc_recorded_of_this_repository_is_what_lies_here(checkout: Path) -> None:
    require_as_trained(read_params(), PRUNING, BACKBONE)


FAULTS = [
    (
        edit("params.yaml", "  select: dominant_contextual ", "  select: random "),
        "section 'tokens' of params",
    ),
    (edit("params.yaml", "  precision: float32 ", "  precision: bfloat16 "), "section 'model' of params"),
    (calibrated_anew, "data/calibrate/pruning.json is not what stage encode was run with"),
    (record("calibrate", PRUNING.as_posix(), "0" * 32), "data/calibrate/pruning.json is not what stage"),
    (record("backbone", BACKBONE.as_posix(), "0" * 32 + ".dir"), "models/backbone is not what stage encode"),
    (lambda: (BACKBONE / "more.json").write_text("{}"), "models/backbone is not what stage encode"),
    (lambda: (BACKBONE / "config.json").write_text("{}"), "models/backbone is not what stage encode"),
    (lambda: Path("dvc.lock").unlink(), "dvc.lock is missing"),
    (lambda: Path("dvc.lock").write_text("stages: [\n"), "dvc.lock is not valid YAML"),
    (
        edit("dvc.lock", "\n  finetune:\n", "\n  finetune-of-before:\n"),
        "dvc.lock records no run of stage fin",
    ),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_what_changed_since_training_is_refused_by_predict_and_export(
    checkout: Path, fault: Any, said: str
) -> None:
    fault()
    (checkout / "models/adapter").mkdir()
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        export_command(Path("exported"))
    assert "`dvc repro`" in str(refused.value) or "Git" in str(refused.value)
    assert "\n" not in str(refused.value) and not Path("exported").exists()
    shutil.copyfile(ROOT / "data/calibrate/patches.png", "picture.png")
    with pytest.raises(ValueError, match=re.escape(said)):
        predict_command(
            Request(image=Path("picture.png"), question="odd ?", jsonl=None, out=None, batch=None)
        )
