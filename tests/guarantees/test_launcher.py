"""Stages started by torchrun, and by torchrun on two nodes of a stand-in for srun that really starts them."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from postgresql import free_port
from runs import prepared, stage, started, steps_traced

from stages.core.launch import LAUNCHER, launch_by
from tests.guarantees.test_processes import children

SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
nodes = int(sys.argv[2])
began = [
    subprocess.Popen(sys.argv[3:], env=os.environ | {{"SLURM_NODEID": str(node), "SLURM_NNODES": str(nodes)}})
    for node in range(nodes)
]
def end(number, frame):
    for process in began:
        process.terminate()
signal.signal(signal.SIGTERM, end)
codes = []
while len(codes) < nodes:
    pid, status = os.wait()
    codes.append(os.waitstatus_to_exitcode(status))
    if codes[-1]:
        end(None, None)
sys.exit(max(map(abs, codes)))
"""


def descendants(pid: int) -> list[int]:
    """Return all processes below one (Linux)."""
    own = children(pid)
    return own + [later for child in own for later in descendants(child)]


def ranks_of(pid: int) -> list[int]:
    """Return the ranks among the processes below one: those that know their number."""
    found = []
    for child in descendants(pid):
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if any(line.startswith(b"RANK=") for line in environment):
            found.append(child)
    return found


@pytest.fixture
def two_nodes(tmp_path: Path) -> str:
    """Return a launcher: srun over two nodes, on each of them torchrun with one process."""
    program = tmp_path / "srun"
    program.write_text(SRUN)
    program.chmod(0o755)
    meeting = f"--rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{free_port()} --rdzv-id test"
    return f"{program} --nodes 2 torchrun --nnodes 2 --nproc-per-node 1 {meeting}"


@pytest.mark.slow
def test_two_nodes_of_slurm_train_together(encoded_checkout, two_nodes):
    checkout = prepared(encoded_checkout, steps=6)
    done = stage(checkout, "finetune", **{LAUNCHER: two_nodes})
    assert done.returncode == 0, done.stderr
    assert steps_traced(checkout) == list(range(6))
    assert list((checkout / "scratch").glob("launch-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["rank", "node", "stage"])
def test_what_is_killed_ends_all_and_another_number_goes_on(encoded_checkout, two_nodes, lost):
    checkout = prepared(encoded_checkout, steps=200)
    process = started(checkout, 25, "stages.finetune", **{LAUNCHER: two_nodes})
    ranks, every = ranks_of(process.pid), descendants(process.pid)
    assert len(ranks) == 2 and len(every) == 5, "srun, two torchrun, two ranks"
    nodes = [pid for pid in every if pid not in ranks and pid != children(process.pid)[0]]
    os.kill({"rank": ranks[1], "node": nodes[0], "stage": process.pid}[lost], signal.SIGKILL)
    start = time.monotonic()
    assert process.wait(timeout=60) not in (0, 2)
    while any(Path(f"/proc/{pid}").exists() for pid in every) and time.monotonic() - start < 60:
        time.sleep(0.1)
    assert not [pid for pid in every if Path(f"/proc/{pid}").exists()], "nothing is left"
    again = stage(checkout, "finetune")
    assert again.returncode == 0, again.stderr
    assert steps_traced(checkout) == list(range(200))


@pytest.mark.slow
def test_a_mistake_is_still_exit_code_2_and_the_last_line(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    (checkout / "models/backbone/config.json").unlink()
    refused = stage(checkout, "finetune", **{LAUNCHER: "torchrun --standalone --nproc-per-node 2"})
    last = refused.stderr.splitlines()[-1]
    assert refused.returncode == 2 and last.startswith("stages.finetune: "), refused.stderr
    assert "holds no config.json" in last


def test_a_launcher_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path))
    for command in ("no-such-program --nodes 2", ""):
        with pytest.raises(ValueError, match="DUALPRIV_LAUNCHER says '.*', which is no command here"):
            launch_by(command, "stages.finetune")


def test_a_launcher_gets_the_module_and_its_code_comes_back(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path))
    said = tmp_path / "said"
    script = f"sh -c 'echo \"$@\" > {said}; exit 7' srun"
    assert launch_by(script, "stages.finetune") == 7
    assert said.read_text() == "-m stages.finetune\n"
