"""The command ``dualpriv memory``: from a config.json alone, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from checkout import edit_params
from commands import Command, commands

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dualpriv(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "model").mkdir()
    shutil.copy(ROOT / "models/pretrained/config.json", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return commands(capsys, monkeypatch)


@pytest.mark.slow
def test_it_predicts_every_method_from_a_config_alone(dualpriv: Command, tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text("name: small\nmemory_gib: 0.05\n")
    status, said, _ = dualpriv(
        "memory", "--model", "model/config.json", "--gpu", "gpu.yaml", "--every-method", "--json"
    )
    found = json.loads(said)
    assert status == 0
    assert found["rows"] == {"visual_tokens": 24, "text_tokens": 64, "answer_tokens": 16}
    by_name = {method["name"]: method for method in found["methods"]}
    assert len(by_name) == 12 and next(iter(by_name)) == "params.yaml"
    for method in by_name.values():
        assert sum(method["parts_gib"].values()) == pytest.approx(method["peak_gib"])
        assert method["dominant"] in method["parts_gib"]
        assert method["largest"]["peak_gib"] <= 0.9 * 0.05 and not method["largest"]["no_more_were_tried"]
        assert method["largest"]["tokens"] == 88 * method["largest"]["rows"]
    kept, zeroth = by_name["DP-SGD, LoRA"], by_name["zeroth order, LoRA"]
    assert zeroth["above_weights_gib"] < kept["above_weights_gib"]
    assert zeroth["largest"]["rows"] > kept["largest"]["rows"] > 0


def test_the_table_names_the_largest_micro_batch(dualpriv: Command, tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text("name: small\nmemory_gib: 0.05\n")
    status, said, _ = dualpriv("memory", "--model", "model", "--gpu", "gpu.yaml", "--batch", "2")
    assert status == 0
    assert "1 x small with 0.05 GiB, of which 10% stay free" in said
    names = [line.split("│")[1].strip() for line in said.splitlines() if "params.yaml" in line]
    assert names == ["params.yaml", "params.yaml, activations recomputed"]


def test_where_not_one_unit_fits_it_says_what_would_do_and_ends_with_1(
    dualpriv: Command, tmp_path: Path
) -> None:
    (tmp_path / "gpu.yaml").write_text("name: tiny\nmemory_gib: 0.01\n")
    status, said, _ = dualpriv("memory", "--model", "model", "--gpu", "gpu.yaml")
    assert status == 1 and "not one unit fits: keep fewer visual tokens" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--gpu", "a1000"), "'a1000' is neither a known GPU (a100-40gb, a100-80gb"),
        (("--model", "nowhere"), "nowhere is no model: name a Hugging Face directory"),
        (("--preset", "nothing"), "there is no preset 'nothing'"),
        (("--margin", "1.5"), "the margin is a share of the GPU's memory"),
        (("--text-tokens", "4"), "4 of text, 16 of them the answer's, cannot be"),
        (("--batch", "0"), "--batch and --gpus count from 1"),
        (("--gpus", "0"), "--batch and --gpus count from 1"),
        (("--gpu", "params.yaml"), "params.yaml has unknown keys"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_2(
    arguments: tuple[str, ...], told: str, dualpriv: Command
) -> None:
    status, _, error = dualpriv("memory", "--model", "model", *arguments)
    assert status == 2 and told in error and error.count("\n") == 1


@pytest.mark.parametrize("more", [(), ("--every-method",)])
def test_reversible_layers_are_not_asked_to_be_sharded(
    more: tuple[str, ...], dualpriv: Command, tmp_path: Path
) -> None:
    edit_params(tmp_path, {"kind: lora": "kind: reversible"})
    status, _, error = dualpriv("memory", "--model", "model", "--gpus", "2", *more)
    assert status == 2 and "ask for --gpus 1" in error and error.count("\n") == 1


def test_a_model_of_another_kind_is_refused_with_what_is_supported(dualpriv: Command, tmp_path: Path) -> None:
    (tmp_path / "model/config.json").write_text(json.dumps({"model_type": "bert"}))
    status, _, error = dualpriv("memory", "--model", "model")
    assert status == 2 and "is a model of type 'bert', which is not supported" in error
