"""``dualpriv export``: what it writes gives our numbers where this project cannot be imported."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from benchmarks.tiny_directories import write_directory
from models import picture
from pipeline.export import export_command
from stages.core.files import read_json, sha256, write_json
from stages.exporting.card import Exported, card_of
from stages.report import Report
from stages.trainable.adapters import load_adapter
from stages.vlm.family import load
from stages.vlm.selection import EVERY_TOKEN
from tests.pipeline.conftest import REPOSITORY
from tests.pipeline.recorded import record_run
from tests.stages.reporting.finished_run import write_run
from tests.stages.test_report import without_this_project

CASES = [
    ("lora", "LLaVA (CLIP)"),
    ("ffa_lora", "Qwen2-VL"),
    ("side", "LLaVA (CLIP)"),
    ("side", "Idefics3"),
    ("reversible", "LLaVA (CLIP)"),
    ("reversible", "Qwen2-VL"),
]
LOAD = {
    True: """
from transformers import AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained(".").eval()
""",
    False: """
import sys
sys.path.insert(0, ".")
from load_model import load
model, processor = load()
""",
}
SCRIPT = """
import torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
given = load_file("../given.safetensors")
with torch.no_grad():
    logits = model(**given).logits
never = [model.config.image_token_id]
said = model.generate(**given, max_new_tokens=3, do_sample=False, suppress_tokens=never)
save_file({"logits": logits, "said": said}, "../found.safetensors")
"""


def given_to(model: Any, processor: Any) -> dict[str, torch.Tensor]:
    """Return what a model is given for a question about an image, as its own processor makes it."""
    parts = [{"type": "image"}, {"type": "text", "text": "odd or even ?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    shown = Image.open("picture.png").convert("RGB")
    given = processor(images=shown, text=prompt, return_tensors="pt")
    return {name: value.contiguous() for name, value in given.items() if name != "token_type_ids"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_export_gives_our_logits_where_this_project_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    """Beside the base, the very bits; merged, up to the rounding of adding up in another order."""
    write_run(tmp_path / "checkout", write_directory(name, tmp_path / "tiny"), trainable=kind)
    record_run(tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    Path("picture.png").write_bytes(picture(1))
    export_command(tmp_path / "exported")
    is_merged = kind in ("lora", "ffa_lora")
    loaded = load(Path("models/backbone"))
    given = given_to(loaded.model, loaded.processor)
    save_file(given, tmp_path / "given.safetensors")
    torch.set_num_threads(1)
    with torch.no_grad():
        before = loaded.model(**given).logits
        ours: Any = load_adapter(loaded.model, Path("models/adapter"), loaded.family)
        expected = ours(**given).logits
    limits = {"suppress_tokens": [loaded.model.config.image_token_id], "max_new_tokens": 3}
    said = ours.generate(**given, do_sample=False, use_cache=is_merged, **limits)
    without_this_project(LOAD[is_merged] + SCRIPT, tmp_path / "exported")
    found = load_file(tmp_path / "found.safetensors")
    difference = float((found["logits"] - expected).abs().max())
    print(f"{kind}, {name}: logits of size {float(expected.abs().max()):.1f} differ by {difference:.1e}")
    assert difference <= (2e-5 * float(expected.abs().max()) if is_merged else 0.0)
    assert found["said"].tolist() == said.tolist()
    assert float((expected - before).abs().max()) > 1e-3, "the adapter changes something"


@pytest.fixture(scope="module")
def finished(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export") / "checkout"
    write_run(root, tiny_llava)
    record_run(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Report.load().run()
    return root


@pytest.fixture
def checkout(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    return root


def test_a_merged_export_is_a_plain_directory_with_card_and_statement(checkout: Path) -> None:
    export_command(Path("given/exported"))
    exported = Path("given/exported")
    backbone = {file.name for file in Path("models/backbone").iterdir()}
    assert {file.name for file in exported.iterdir()} == backbone | {"README.md", "statement.json"}
    for name in backbone - {"model.safetensors", "config.json", "provenance.json"}:
        assert (exported / name).read_bytes() == (Path("models/backbone") / name).read_bytes(), name
    assert sha256(exported / "statement.json") == sha256(Path("data/account/statement.json"))
    before, after = (load_file(path / "model.safetensors") for path in (Path("models/backbone"), exported))
    assert before.keys() == after.keys(), "no adapter is left in the names"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(re.search(r"language_model.*_proj\.weight", name) for name in changed)
    assert not [path for path in Path("given").iterdir() if path.name != "exported"]


def test_the_card_says_what_it_cost_what_it_sees_and_how_to_load_it(checkout: Path) -> None:
    export_command(Path("exported"))
    card = Path("exported/README.md").read_text()
    front = YAML(typ="safe", pure=True).load(card.split("---\n")[1])
    assert front["library_name"] == "transformers" and front["base_model"] == "models/pretrained"
    statement = read_json(Path("data/account/statement.json"))
    assert statement["sentence"].replace("_", r"\_") in card or statement["sentence"] in card
    assert "It is post-processing of an adapter whose privacy is paid for: it costs nothing" in card
    assert "sees all 64 visual tokens of an image. In training it saw at most 9" in card
    assert "Pruning at inference is optional" in card
    headings = re.findall(r"^## (.*)$", card, flags=re.MULTILINE)
    assert headings == ["What this is", "How to load it", "What it sees", "Utility on held-out records"] + [
        "The mechanism", "Looked for and found", "What is not protected"
    ]  # fmt: skip
    assert "peft" not in card.lower().replace("adapter of kind lora", "")


def test_the_card_of_a_run_without_noise_does_not_call_its_privacy_paid_for() -> None:
    exported = Exported(kind="lora", base="models/pretrained", precision="float32")
    statement = {"epsilon": None, "sentence": "This model carries no privacy guarantee."}
    card = card_of(exported, statement, EVERY_TOKEN, 64, None)
    assert "**WARNING: No privacy" in card and "paid for" not in card and "nothing is promised" in card


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "reversible"])
def test_the_code_on_the_card_runs_as_it_stands(
    tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write_run(tmp_path / "checkout", tiny_llava, trainable=kind)
    record_run(tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    export_command(tmp_path / "exported")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "exported/README.md").read_text(), re.S)
    assert code is not None
    (tmp_path / "exported/picture.png").write_bytes(picture(1))
    here = "import sys\nsys.path.insert(0, '.')\n"  # as where Python is started without -I
    # Random weights may say an image slot, which a trained model does not.
    quiet = code[1].replace("max_new_tokens=64", "max_new_tokens=1")
    without_this_project(here + quiet, tmp_path / "exported")


def test_a_card_of_another_statement_is_not_taken_over(checkout: Path) -> None:
    write_json(Path("models/release/statement.json"), {"epsilon": 1.0})
    export_command(Path("exported"))
    assert "## Utility" not in Path("exported/README.md").read_text()


def remove(path: str) -> Any:
    def change() -> None:
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()

    return change


def edit(path: str, **values: Any) -> Any:
    return lambda: write_json(Path(path), read_json(Path(path)) | values)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (remove("models/backbone"), "models/backbone is missing: run `dvc repro`"),
        (remove("models/adapter"), "models/adapter is missing: run `dvc repro`"),
        (remove("data/account/statement.json"), "data/account/statement.json is missing"),
        (remove("data/calibrate/pruning.json"), "data/calibrate/pruning.json is missing"),
        (
            edit("data/finetune/trace.json", more=1),
            "is not the file that data/account/statement.json commits to",
        ),
        (
            edit("models/adapter/adapter_config.json", r=2),
            "is not the file that data/finetune/trace.json names",
        ),
        (lambda: Path("exported").mkdir(), "exported exists already: name a new directory"),
        (lambda: Path("exported").symlink_to("nowhere"), "exported exists already: name a new directory"),
    ],
)
def test_what_cannot_be_handed_on_is_one_sentence_and_leaves_nothing(
    checkout: Path, fault: Any, said: str
) -> None:
    fault()
    before = set(checkout.iterdir())
    with pytest.raises(ValueError) as refused:
        export_command(Path("exported"))
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert set(checkout.iterdir()) == before


def test_a_place_that_cannot_be_written_is_one_sentence(checkout: Path) -> None:
    with pytest.raises(ValueError, match=r"picture\.png/exported cannot be written: File exists"):
        Path("picture.png").write_bytes(picture(1))
        export_command(Path("picture.png/exported"))


def test_the_command_refuses_in_one_sentence_and_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = [sys.executable, "-c", "from pipeline.cli import main; main()", "export", "--to", "exported"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run(run, env=environment, capture_output=True, text=True)
    sentence = "dualpriv: models/backbone is missing: run `dvc repro` (or `dvc pull`) to make it\n"
    assert (found.returncode, found.stdout, found.stderr) == (2, "", sentence)
    assert not list(tmp_path.glob("*exported*"))
