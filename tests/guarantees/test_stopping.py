"""A run that is told to stop saves what it has finished, says how to go on, and ends with the same bits."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from checkout import dvc, edit_params
from runs import ADAPTER, prepared, stage, started, steps_begun, the_folder, undisturbed

from stages.training.checkpoint import load_checkpoint
from stages.training.intents import read_begun

FINETUNE = "stages.finetune"


def stop(checkout: Path, moment: int, number: signal.Signals) -> tuple[int, str]:
    """Send a signal when step ``moment`` has begun; return the exit code and what was said."""
    process = started(checkout, moment, FINETUNE)
    os.kill(process.pid, number)
    code = process.wait(timeout=20)
    return code, (checkout / "errors.txt").read_text()


def steps_saved(checkout: Path) -> int:
    folder = the_folder(checkout)
    found = load_checkpoint(folder / "checkpoint.safetensors", folder.name, "cpu")
    assert found is not None
    return found.step


@pytest.mark.slow
def test_sigterm_and_ctrl_c_save_finished_steps_and_the_run_goes_on_with_the_same_bits(
    encoded_checkout, tmp_path
):
    checkout = prepared(encoded_checkout, steps=40)
    edit_params(checkout, {r"checkpoint_every: \d+": "checkpoint_every: 1000"})
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    for number, code, word, moment in (
        (signal.SIGTERM, 143, "stopped", 5),
        (signal.SIGINT, 130, "interrupted", 15),
    ):
        ended, said = stop(checkout, moment, number)
        saved = steps_saved(checkout)
        assert ended == code and "Traceback" not in said
        expected = f"{word}; {saved} of 40 steps are saved, and the same command goes on from there"
        assert said.splitlines()[-1] == f"stages.finetune: {expected}"
        folder = the_folder(checkout)
        begun = len(read_begun(folder / "intents.jsonl"))
        assert begun - 1 <= saved <= begun, "nothing that was finished is lost"
    key = (folder / "run.key").read_bytes()
    dvc(checkout, "repro", "finetune")
    assert max(begun.attempts for begun in read_begun(folder / "intents.jsonl")) <= 2
    assert (checkout / ADAPTER).read_bytes() == undisturbed(twin, key, folder.name)


@pytest.mark.slow
def test_a_run_whose_inputs_have_changed_cannot_go_on_and_what_changed_is_said(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=40)
    stop(checkout, 3, signal.SIGTERM)
    begun = steps_begun(checkout)
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    noise = checkout / "stages/privacy/noise.py"
    code = noise.read_text()
    noise.write_text(code + "\n# a remark\n")
    refused = stage(checkout, "finetune")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert f"stopped after it began {begun} steps" in refused.stderr
    assert "optim.beta2 was 0.99 and is 0.9" in refused.stderr
    assert "stages/privacy/noise.py changed" in refused.stderr
    assert "Restore them" in refused.stderr and "`dualpriv repro --new-release`" in refused.stderr
    assert steps_begun(checkout) == begun and len(list((checkout / "scratch/finetune").glob("*/"))) == 1
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.99"})
    noise.write_text(code)
    assert stage(checkout, "finetune").returncode == 0, "restored, it goes on"
