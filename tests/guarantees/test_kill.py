"""A run that is killed at any call of the system and goes on ends with the bits of one that nobody killed."""

import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest
from checkout import edit_params
from runs import ADAPTER, injected, prepared, stage, the_folder, undisturbed

from stages.training.checkpoint import load_checkpoint
from stages.training.intents import read_begun

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the injector asks /proc for paths")


def half_written(folder: Path) -> list[str]:
    return [path.name.split(".")[1] for path in folder.glob(".*.partial")]


def killed(checkout: Path, **order: object) -> Path:
    """Let a run be killed as ordered, and return its folder."""
    done = injected(checkout, **order)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return the_folder(checkout)


def ended_as_the_twin(checkout: Path, twin: Path, steps: int) -> None:
    """Let the run go on to its end, and compare it with one that has its key and that nobody kills."""
    done = stage(checkout, "finetune")
    assert done.returncode == 0, done.stderr
    trace = json.loads((checkout / "data/finetune/trace.json").read_text())
    assert [step["step"] for step in trace["steps"]] == list(range(steps)), "no step is missing or twice"
    assert not any("attempts" in step for step in trace["steps"]), "why a step began again may be private"
    folder = the_folder(checkout)
    assert half_written(folder) == []
    key = (folder / "run.key").read_bytes()
    assert undisturbed(twin, key, folder.name) == (checkout / ADAPTER).read_bytes()
    assert (twin / "models/adapter/adapter_config.json").read_bytes() == (
        checkout / "models/adapter/adapter_config.json"
    ).read_bytes()


def test_killed_in_making_the_key_in_a_checkpoint_and_before_a_step_gives_the_same_bits(
    encoded_checkout, tmp_path
):
    checkout = prepared(encoded_checkout, steps=6)
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    folder = killed(checkout, act="half", calls=["fsync"], path=r"/\.run\.key\.")
    assert not (folder / "run.key").exists() and half_written(folder) == ["run"]
    folder = killed(checkout, act="half", calls=["fsync"], path=r"/\.checkpoint\.", at=2)
    found = load_checkpoint(folder / "checkpoint.safetensors", folder.name, "cpu")
    assert found is not None and found.step == 3, "the first one is whole"
    assert half_written(folder) == ["checkpoint"]
    killed(checkout, act="after", calls=["fsync"], path=r"/intents\.jsonl$", at=2)
    assert [step.attempts for step in read_begun(folder / "intents.jsonl")] == [1, 1, 1, 2, 2, 1]
    ended_as_the_twin(checkout, twin, steps=6)


@pytest.mark.slow
def test_another_key_gives_other_bits(encoded_checkout, tmp_path):
    """Negative control: the comparison above is not between runs that are equal anyway."""
    checkout = prepared(encoded_checkout, steps=6)
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    assert stage(checkout, "finetune").returncode == 0
    folder = the_folder(checkout)
    assert undisturbed(twin, bytes(32), folder.name) != (checkout / ADAPTER).read_bytes()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_gives_the_same_bits(encoded_checkout, tmp_path):
    """Before, in and after any call, and up to 50 ms later, in the middle of a step.

    An attempt that comes to the end is no kill; the next one starts upon the finished run.
    """
    seed = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"KILL_SEED={seed} repeats this")
    dice = random.Random(seed)
    checkout = prepared(encoded_checkout, steps=24)
    edit_params(checkout, {r"checkpoint_every: \d+": "checkpoint_every: 2"})
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    kills = in_training = 0
    while kills < 20:
        act = dice.choice(("before", "after", "half", "alarm", "alarm"))
        order = {"act": act, "at": dice.randint(1, 20), "delay": dice.uniform(0.001, 0.05)}
        done = injected(checkout, **order)
        print(order, done.returncode, checkout.with_name("calls.log").read_text().splitlines()[-1])
        assert done.returncode in (0, -signal.SIGKILL, -signal.SIGALRM), done.stderr
        kills += done.returncode != 0
        in_training += done.returncode != 0 and not (checkout / "data/finetune/trace.json").exists()
    assert in_training >= 5, "the rest fell before the first step, or upon a run that was finished"
    ended_as_the_twin(checkout, twin, steps=24)
