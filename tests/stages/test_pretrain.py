"""The committed backbone is what the committed code and parameters made, and the test says what drifted."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from stages.core.canonical import canonical_json
from stages.core.closure import import_closure
from stages.core.files import sha256
from stages.core.params import read_params, read_section
from stages.core.seed import Seed
from stages.demonstration.pretraining import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]
LARGEST = 12_000_000


def drifted(root: Path) -> list[str]:
    """Return what is no longer as it was when the weights in ``root`` were made."""
    provenance = json.loads((root / "models/pretrained/provenance.json").read_text())
    params = read_params(root / "params.yaml")
    recipe, seed = read_section(params, "pretrain", Recipe), read_section(params, "seed", Seed)
    parameters = canonical_json({"pretrain": asdict(recipe), "seed": {"public": seed.public}})
    code = {
        path.as_posix(): sha256(root / path)
        for path in import_closure("stages.demonstration.pretraining", root)
    }
    found = []
    if sha256(root / "models/pretrained/model.safetensors") != provenance["weights"]:
        found.append("models/pretrained/model.safetensors")
    if hashlib.sha256(parameters).hexdigest() != provenance["parameters"]:
        found.append("params.yaml")
    return found + sorted(
        name for name in code | provenance["code"] if code.get(name) != provenance["code"].get(name)
    )


def test_the_committed_backbone_is_what_its_provenance_says() -> None:
    assert drifted(REPOSITORY) == []
    assert sum(file.stat().st_size for file in (REPOSITORY / "models/pretrained").iterdir()) <= LARGEST


def test_a_changed_weight_parameter_or_line_of_code_is_named(tmp_path: Path) -> None:
    for name in ("stages", "models/pretrained"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    params = (REPOSITORY / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("warmup_steps: 100", "warmup_steps: 99"))
    with open(tmp_path / "stages/vlm/pruning.py", "a") as file:
        file.write("# changed\n")
    with open(tmp_path / "models/pretrained/model.safetensors", "ab") as file:
        file.write(b"x")
    assert drifted(tmp_path) == [
        "models/pretrained/model.safetensors",
        "params.yaml",
        "stages/vlm/pruning.py",
    ]
