"""A dvc.lock for a finished run that DVC did not make, as far as it says what the model was trained with."""

import hashlib
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.params import read_params


def record_run(root: Path) -> None:
    """Write the records of stages encode and finetune, of what lies below ``root`` now."""
    params = read_params(root / "params.yaml")
    content = (root / "data/calibrate/pruning.json").read_bytes()
    files = sorted(file for file in (root / "models/backbone").iterdir())
    digests = "".join(hashlib.md5(file.read_bytes()).hexdigest() for file in files)
    stage: dict[str, Any] = {
        "cmd": "nothing",
        "deps": [
            {"path": "data/calibrate/pruning.json", "md5": hashlib.md5(content).hexdigest()},
            {
                "path": "models/backbone",
                "md5": hashlib.md5(digests.encode()).hexdigest() + ".dir",
                "size": sum(len(file.read_bytes()) for file in files),
                "nfiles": len(files),
            },
        ],
        "params": {"params.yaml": {section: params[section] for section in ("model", "tokens")}},
    }
    lock = {"schema": "2.0", "stages": {"encode": stage, "finetune": stage}}
    yaml = YAML(typ="safe", pure=True)
    yaml.representer.ignore_aliases = lambda data: True
    yaml.dump(lock, root / "dvc.lock")
