"""Own records and an own model, from `dualpriv init` to an adapted model that loads without this project."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkout import dvc, run
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.tiny_directories import write_directory
from tests.pipeline.conftest import commit_all

WRITERS, EACH = 40, 3
WORDS = "zero one two three four five six seven eight nine".split()
DUALPRIV = (sys.executable, "-c", "from pipeline.cli import main; main()")
ELSEWHERE = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("stages", "pipeline", "benchmarks"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuses())
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], local_files_only=True)
out = model(input_ids=torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3, dtype=torch.long))
assert out.logits.isfinite().all()
print("loaded", type(model).__name__)
"""


def write_scans(folder: Path) -> None:
    """Write scikit-learn's digits as a person would keep scans: a folder, LLaVA's JSON, a field for whose."""
    digits = load_digits()
    folder.mkdir()
    records = []
    for number in range(WRITERS * EACH):
        pixels = (digits.images[number] * 15.9).astype(np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(folder / f"scan-{number}.png")
        said = [
            {"from": "human", "value": "<image>\nwhich digit is this ?"},
            {"from": "gpt", "value": WORDS[digits.target[number]]},
        ]
        writer = f"writer {number // EACH}"
        records.append({"id": number, "image": f"scan-{number}.png", "writer": writer, "conversations": said})
    (folder / "rows.json").write_text(json.dumps(records))


@pytest.mark.slow
def test_own_data_goes_from_init_to_a_model_that_loads_elsewhere(
    built_checkout: Path, tmp_path: Path
) -> None:
    checkout, scans, exported = built_checkout, tmp_path / "scans", tmp_path / "exported"
    write_scans(scans)
    write_directory("Qwen2-VL", tmp_path / "model")
    said = run(
        checkout,
        *DUALPRIV,
        "init",
        *("--data", str(scans), "--model", str(tmp_path / "model"), "--unit", "writer"),
        *(
            "--population",
            "writers",
            "--unit-in-words",
            "writer",
            "--max-units",
            "100",
            "--units-about",
            "40",
        ),
        *("--epsilon", "8", "--delta", "1e-3", "--limit", "20"),
    ).stdout
    assert f"{WRITERS}, by 'writer'" in said and "next:" in said
    commit_all(checkout)
    dvc(checkout, "repro")
    commit_all(checkout)
    verdict = json.loads(run(checkout, *DUALPRIV, "audit", "--require-weights", "--json").stdout)
    assert verdict["verdict"] == "pass", verdict
    report = (checkout / "data/report/report.html").read_text()
    assert "writers" in report and "scan-" not in report and "writer 3" not in report
    run(checkout, *DUALPRIV, "export", "--to", str(exported))
    loaded = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(exported)], cwd=tmp_path, capture_output=True, text=True
    )
    assert "loaded Qwen2VLForConditionalGeneration" in loaded.stdout, loaded.stderr
    ledger = json.loads(run(checkout, *DUALPRIV, "ledger", "--json").stdout)
    assert "writers" in json.dumps(ledger)
