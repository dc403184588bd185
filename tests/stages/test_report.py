"""The release directory is the adapter, loadable by strangers, and the stage is reproducible."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from models import picture
from pipeline.graph import stage_classes
from stages.report import Report
from stages.trainable.adapters import load_adapter
from stages.vlm.family import load
from tests.stages.reporting.finished_run import write_run

BLOCK = """\
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("stages", "pipeline"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
try:
    import stages
except ModuleNotFoundError:
    print("ABSENT")
"""
"""Makes this project impossible to import, installed or not."""


@pytest.fixture(scope="module")
def checkout(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report") / "checkout"
    write_run(root, tiny_llava)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Report.load().run()
    return root


def without_this_project(script: str, cwd: Path) -> str:
    run = [sys.executable, "-I", "-W", "ignore", "-c", BLOCK + script]
    found = subprocess.run(run, cwd=cwd, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("ABSENT\n"), "the project must not be importable here"
    return found.stdout.removeprefix("ABSENT\n")


def test_the_release_is_the_adapter_byte_for_byte(checkout: Path) -> None:
    names = {file.name for file in (checkout / "models/release").iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "statement.json"}
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        released = (checkout / "models/release" / name).read_bytes()
        assert released == (checkout / "models/adapter" / name).read_bytes()
    statement = (checkout / "data/account/statement.json").read_bytes()
    assert (checkout / "models/release/statement.json").read_bytes() == statement


@pytest.mark.slow
def test_plain_peft_loads_the_release_without_this_project(checkout: Path) -> None:
    """Logits of the stranger's model equal ours on the same input, and differ from the backbone's."""
    script = """
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText
base = AutoModelForImageTextToText.from_pretrained("models/backbone")
given = torch.arange(8, 16)[None]
print([*base(input_ids=given).logits[0, -1, :5].tolist()])
model = PeftModel.from_pretrained(base, "models/release").eval()
print([*model(input_ids=given).logits[0, -1, :5].tolist()])
"""
    before, after = (eval(line) for line in without_this_project(script, checkout).splitlines())
    base = load(checkout / "models/backbone")
    ours = load_adapter(base.model, checkout / "models/adapter", base.family)
    with torch.no_grad():
        expected = ours(input_ids=torch.arange(8, 16)[None]).logits[0, -1, :5].tolist()
    assert after == pytest.approx(expected, abs=1e-5)
    assert after != pytest.approx(before, abs=1e-3), "the adapter changes something"


def test_the_code_on_the_card_runs_as_it_stands(checkout: Path) -> None:
    card = (checkout / "models/release/README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.S)
    assert code is not None
    (checkout / "picture.png").write_bytes(picture(1))
    # Random weights may say an image slot, which a trained model does not.
    quiet = code[1].replace("max_new_tokens=64", "max_new_tokens=1")
    without_this_project(quiet, checkout)


def test_the_code_on_a_side_networks_card_runs_where_this_project_is(
    tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkout"
    write_run(root, tiny_llava, trainable="side")
    monkeypatch.chdir(root)
    Report.load().run()
    names = {file.name for file in (root / "models/release").iterdir()}
    assert names == {"README.md", "side_config.json", "side_model.safetensors", "statement.json"}
    card = (root / "models/release/README.md").read_text()
    assert "# Side network for" in card and "side, reduction 8" in card and "rank" not in card
    assert "side, reduction 8" in (root / "data/report/report.html").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.S)
    assert code is not None
    (root / "picture.png").write_bytes(picture(1))
    quiet = code[1].replace("max_new_tokens=64", "max_new_tokens=1")
    repository = Path(__file__).resolve().parents[2]
    run = [sys.executable, "-W", "ignore", "-c", quiet]
    found = subprocess.run(run, cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(repository)})
    assert found.returncode == 0, found.stderr


def test_the_card_begins_with_front_matter_and_the_sentence(checkout: Path) -> None:
    card = (checkout / "models/release/README.md").read_text()
    _, front, body = card.split("---\n", 2)
    about = YAML(typ="safe", pure=True).load(front)
    assert (about["base_model"], about["library_name"]) == ("models/pretrained", "peft")
    paragraphs = [" ".join(part.split()) for part in body.strip().split("\n\n")]
    assert paragraphs[0].startswith("# ")
    assert paragraphs[1].startswith("For population 'toy'")
    assert "| digit | 75.0" in card


def test_running_again_gives_the_same_bytes(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = ("data/report/report.html", "models/release/README.md")
    before = [(checkout / file).read_bytes() for file in written]
    monkeypatch.chdir(checkout)
    Report.load().run()
    assert [(checkout / file).read_bytes() for file in written] == before


def test_the_report_is_the_last_stage_and_reads_no_records() -> None:
    assert Report in stage_classes()
    read = {port.path.as_posix() for port in Report.ports() if port.role == "reads" and port.path}
    assert not [path for path in read if path.startswith(("data/records", "data/encoded"))]
