"""A full disk stops a run with one sentence and costs nothing: with room again it ends with equal bits."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import LEDGER, environment
from runs import ADAPTER, give_key, injected, prepared, stage, the_folder

from stages.training.checkpoint import load_checkpoint
from stages.training.intents import read_begun

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the injector asks /proc for paths")


@pytest.fixture
def checkout(encoded_checkout, tmp_path) -> Path:
    """Return a checkout whose run will have the key of its finished twin."""
    checkout = prepared(encoded_checkout, steps=6)
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    done = stage(twin, "finetune")
    assert done.returncode == 0, done.stderr
    folder = the_folder(twin)
    give_key(checkout, (folder / "run.key").read_bytes(), folder.name)
    return checkout


def twins_adapter(tmp_path: Path) -> bytes:
    return (tmp_path / "twin" / ADAPTER).read_bytes()


def is_one_sentence(text: str, path: str) -> bool:
    """Tell whether a stage ended with one sentence on a full disk that names ``path``."""
    last = text.splitlines()[-1]
    said = last.startswith("stages.finetune: no space left on disk") and path in last
    return said and "Traceback" not in text


def refused(checkout: Path, named: str, **order: object) -> str:
    """Let the disk be full as ordered, and return the sentence, which names the file ``named``."""
    done = injected(checkout, act="full", **order)
    assert done.returncode == 2, done.stderr
    assert is_one_sentence(done.stderr, named), done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_disk_that_is_full_at_an_intent_a_checkpoint_and_the_trace_costs_nothing(checkout, tmp_path):
    folder = the_folder(checkout)
    refused(checkout, "intents.jsonl", calls=["write"], path=r"/intents\.jsonl$", at=3)
    assert [step.step for step in read_begun(folder / "intents.jsonl")] == [0], "half an intent is none"
    sentence = refused(checkout, "checkpoint.safetensors", calls=["fsync"], path=r"/\.checkpoint\.", at=2)
    assert "goes on from the checkpoint before, which is whole" in sentence
    found = load_checkpoint(folder / "checkpoint.safetensors", folder.name, "cpu")
    assert found is not None and found.step == 3
    assert list(folder.glob(".*.partial")) == []
    refused(checkout, "data/finetune/trace.json", calls=["fsync"], path=r"/\.trace\.json\.")
    assert not (checkout / "data/finetune/trace.json").exists()
    assert stage(checkout, "finetune").returncode == 0
    assert (checkout / ADAPTER).read_bytes() == twins_adapter(tmp_path)
    assert [step.attempts for step in read_begun(folder / "intents.jsonl")] == [2, 1, 1, 2, 2, 2]


REALLY_FULL = """
mv "$1" before && mkdir "$1" || exit 1
mount -t tmpfs -o size=2m tmpfs "$1" || exit 77
cp -a before/. "$1" && rm -r before || exit 1
dd if=/dev/zero of="$1/ballast" bs=4096 2> /dev/null
truncate --size="-$2" "$1/ballast"
"$3" -m stages.finetune 2> full.err
echo $? > full.rc
rm "$1/ballast"
"$3" -m stages.finetune > again.err 2>&1
echo $? > again.rc
cp models/adapter/adapter_model.safetensors adapter
"""
"""$1 becomes a file system of memory with room for $2 bytes; $3 is Python. It is gone when the shell ends."""


def mounting(command: list[str], checkout: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that may mount, or skip the test with the reason why none may."""
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        first = subprocess.run([*alone, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if first.returncode != 0:
        pytest.skip(f"the kernel gives no mount namespace: {first.stderr.strip()}")
    done = subprocess.run(
        [*alone, *command], cwd=checkout, env=environment(**more), capture_output=True, text=True
    )
    if done.returncode == 77:
        pytest.skip(f"the kernel mounts no tmpfs: {done.stderr.strip()}")
    return done


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "room", "names"),
    [
        ("scratch", 7 * 4096, "ledger.sqlite3"),  # not for the journal of the reservation
        ("scratch", 7 * 4096, "checkpoint.safetensors"),  # for the first checkpoint, and not for two at once
        ("models", 2 * 4096, "models/.adapter."),  # for what PEFT writes before the weights
        ("models", 3 * 4096, "models/adapter"),  # and for the weights, and not for the configuration
    ],
)
def test_a_file_system_that_is_really_full_costs_nothing(place, room, names, checkout, tmp_path):
    elsewhere = {}
    if names != "ledger.sqlite3":
        elsewhere["DUALPRIV_LEDGER"] = shutil.copy2(checkout / LEDGER, tmp_path)
    done = mounting(["sh", "-c", REALLY_FULL, "sh", place, str(room), sys.executable], checkout, **elsewhere)
    assert done.returncode == 0, done.stderr
    text = (checkout / "full.err").read_text()
    assert is_one_sentence(text, names), text
    assert (checkout / "full.rc").read_text() == "2\n"
    assert (checkout / "again.rc").read_text() == "0\n", (checkout / "again.err").read_text()
    assert (checkout / "adapter").read_bytes() == twins_adapter(tmp_path)
