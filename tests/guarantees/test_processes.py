"""Stages run in several processes end together, go on in another number, and write the same files."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from checkout import dvc, edit_params, run
from runs import ADAPTER, prepared, stage, start, started, steps_begun, steps_traced, the_folder

from stages.core.files import sha256
from stages.training.checkpoint import load_checkpoint

TWO = {"DUALPRIV_SPEED_PROCESSES": "2"}


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, eldest first (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            after_name = stat.read_text().rpartition(")")[2].split()
            if int(after_name[1]) == pid:
                found.append(int(stat.parent.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["leader", "follower"])
def test_killing_one_process_ends_all_and_one_alone_goes_on(encoded_checkout, which):
    """When a follower is lost the leader saves what it has finished; killed itself, it has its checkpoint."""
    checkout = prepared(encoded_checkout, steps=200)
    edit_params(checkout, {r"checkpoint_every: \d+": f"checkpoint_every: {(10, 1000)[which]}"})
    process = started(checkout, 25, "stages.finetune", **TWO)
    both = children(process.pid)
    assert len(both) == 2
    os.kill(both[which], signal.SIGKILL)
    start = time.monotonic()
    code = process.wait(timeout=30)
    assert time.monotonic() - start < 10
    assert not any(Path(f"/proc/{pid}").exists() for pid in both)
    said = (checkout / "errors.txt").read_text()
    assert code == 137 and f"process {which} of 2 was killed (signal 9)" in said
    assert "Traceback" not in said
    folder = the_folder(checkout)
    begun = steps_begun(checkout)
    saved = load_checkpoint(folder / "checkpoint.safetensors", folder.name, "cpu")
    assert saved is not None and begun - 1 - (10, 0)[which] <= saved.step <= begun
    again = stage(checkout, "finetune")
    assert again.returncode == 0, again.stderr
    assert steps_traced(checkout) == list(range(200))
    assert steps_begun(checkout) == 200 + begun - saved.step, "what followed the checkpoint ran twice"


@pytest.mark.slow
def test_processes_that_do_not_see_one_scratch_folder_are_refused(encoded_checkout, tmp_path):
    checkout = prepared(encoded_checkout, steps=6)
    ranks = [
        start(
            checkout,
            "stages.finetune",
            RANK=str(rank),
            WORLD_SIZE="2",
            DUALPRIV_RENDEZVOUS=str(tmp_path / "meeting"),
            DUALPRIV_SCRATCH=str(tmp_path / f"scratch-{rank}"),
        )
        for rank in range(2)
    ]
    assert ranks[1].wait(timeout=120) == 2, "errors.txt holds what the last one started has said"
    assert "processes of one run need one scratch folder" in (checkout / "errors.txt").read_text()
    assert ranks[0].wait(timeout=60) != 0
    assert not (checkout / "models/adapter").exists()
    assert list((tmp_path / "scratch-1").rglob("*.key")) == []


@pytest.mark.slow
def test_a_mistake_in_several_processes_is_still_one_sentence_and_exit_code_2(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    (checkout / "models/backbone/config.json").unlink()
    refused = stage(checkout, "finetune", **TWO)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert "holds no config.json" in refused.stderr and refused.stderr.startswith("stages.finetune: ")


def files(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("processes", ["2", pytest.param("3", marks=pytest.mark.slow)])
def test_encode_writes_the_same_bytes_in_several_processes_as_in_one(encoded_checkout, processes):
    checkout = encoded_checkout
    alone = {split: files(checkout / "data/encoded" / split) for split in ("train", "heldout")}
    for split in alone:
        assert "features-00000.safetensors" in alone[split]
        run(checkout, "rm", "-rf", f"data/encoded/{split}")
    run(checkout, "rm", "-rf", "scratch/encode")  # where one process has left every image encoded
    done = stage(checkout, "encode", DUALPRIV_SPEED_PROCESSES=processes)
    assert done.returncode == 0, done.stderr
    for split, digests in alone.items():
        assert files(checkout / "data/encoded" / split) == digests


@pytest.mark.slow
def test_torchrun_starts_the_stage_as_well(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "stages.finetune")
    done = run(checkout, sys.executable, "-m", *torchrun, check=False)
    assert done.returncode == 0, done.stderr
    assert steps_traced(checkout) == list(range(6))


@pytest.mark.slow
def test_the_pipeline_in_two_processes_with_a_sharded_base_passes_the_audit(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    dvc(checkout, "repro", "report", DUALPRIV_SPEED_SHARD_BASE="true", **TWO)
    assert (checkout / ADAPTER).exists()
    audited = run(checkout, sys.executable, "-m", "pipeline.cli", "audit", check=False)
    assert audited.returncode == 0, audited.stdout + audited.stderr
