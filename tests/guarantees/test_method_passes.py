"""Every method runs from plan to report by params.yaml alone, is killed on the way, and is audited."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
from checkout import dvc, edit_params, run
from runs import give_key, injected, stage, the_folder

METHODS = {
    "DP-SGD": {r"prune: \w+": "prune: all", r"select: \w+": "select: all"},
    "DP-MemArc, side network": {r"kind: lora": "kind: side", r"reduction: \d+": "reduction: 4"},
    "DP-MemArc, reversible": {r"kind: lora": "kind: reversible"},
    "DPZero": {r"kind: gradient": "kind: zeroth_order", r"prune: \w+": "prune: all"},
    "DP-AggZO beside a side network": {
        r"kind: gradient": "kind: zeroth_order",
        r"kind: lora": "kind: side",
        r"reduction: \d+": "reduction: 4",
        r"directions: \d+": "directions: 3",
    },
    "zeroth order with a pure epsilon": {
        r"kind: gradient": "kind: zeroth_order",
        r"noise: gaussian": "noise: laplace",
        r"(privacy:\n(?:  .*\n)*?  delta:) \S+": r"\1 0.0",
    },
    "accumulated support": {r"prune: \w+": "prune: accumulated", r"warmup_steps: \d+": "warmup_steps: 2"},
    "non-private": {r"kind: gradient": "kind: nonprivate"},
}


def adapter(checkout: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (checkout / "models/adapter").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_killed_goes_on_to_the_same_bits_and_passes_its_audit(
    method: str, encoded_checkout: Path, tmp_path: Path
) -> None:
    edit_params(encoded_checkout, METHODS[method])
    dvc(encoded_checkout, "repro", "plan", "encode")
    twin = Path(shutil.copytree(encoded_checkout, tmp_path / "twin", symlinks=True))
    done = injected(encoded_checkout, act="after", calls=["fsync"], path=r"/intents\.jsonl$", at=5)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = the_folder(encoded_checkout)
    key = (folder / "run.key").read_bytes()
    dvc(encoded_checkout, "repro")
    give_key(twin, key, folder.name)
    alone = stage(twin, "finetune")
    assert alone.returncode == 0, alone.stderr
    assert adapter(encoded_checkout) == adapter(twin)
    assert all(name.endswith((".json", ".safetensors")) for name in adapter(encoded_checkout))
    statement = json.loads((encoded_checkout / "data/account/statement.json").read_text())
    assert (statement["epsilon"] is None) == (method == "non-private")
    assert statement["within_target"] == (method != "non-private")
    audited = run(encoded_checkout, sys.executable, "-m", "pipeline.cli", "audit", check=False)
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert (encoded_checkout / "data/report/report.html").is_file()
