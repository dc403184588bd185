"""The command ``dualpriv preflight`` on real model classes, as a process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tiny_families import write_family
from models import rows
from stages.records.store import write_rows


def dualpriv(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "preflight", *arguments], capture_output=True, text=True
    )


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("SmolVLM", "Qwen2.5-VL", "PaliGemma")]


@pytest.mark.parametrize("name", ["LLaVA (CLIP)", *OTHERS])
@pytest.mark.slow
def test_all_three_parts_at_once_pass(tmp_path: Path, name: str) -> None:
    write_family(name, tmp_path / "model")
    done = dualpriv("--model", str(tmp_path / "model"), "--train", "lm,projector,vision", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["reasons"]) == (0, "pass", [])
    assert found["units"] == 3 and found["max_relative_error"] < 1e-5
    assert found["max_contribution_over_clip"] < 1 + 1e-6 and found["neighbour_drift"] < 1e-5


def test_recorded_rows_pass_through_the_models_own_processor(tmp_path: Path, tiny_llava: Path) -> None:
    write_rows(tmp_path / "records", rows(3, rows_per_unit=2, images_per_row=2), None)
    done = dualpriv("--model", str(tiny_llava), "--records", str(tmp_path / "records"))
    assert done.returncode == 0, done.stderr
    assert "verdict: pass" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nowhere"], "nowhere holds no config.json"),
        (["--model", "MODEL", "--train", "lm,head"], "'head' is no part of a model"),
        (["--model", "MODEL", "--records", "nowhere"], "nowhere is missing"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(arguments: list[str], sentence: str, tiny_llava: Path) -> None:
    done = dualpriv(*[str(tiny_llava) if word == "MODEL" else word for word in arguments])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert sentence in done.stderr


def test_a_model_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = dualpriv("--model", str(tmp_path))
    assert done.returncode == 2 and "models of type 'llama' are not supported" in done.stderr
