"""Processes of one stage meet, agree, and end together."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import environment

from stages.core.ranks import ALONE, LOST, Ranks

REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = """
import json, os, signal, sys, time
from stages.core.entry import refuse
from stages.core.ranks import RankLost, joined
from stages.core.stopping import stop_once

stop_once()
try:
    with joined("cpu") as ranks:
        print("ready", flush=True)
        {body}
except RankLost as error:
    sys.exit(75)
"""
LAUNCH = """
import sys
from stages.core.launch import launch
from stages.core.stopping import stop_once

stop_once()
sys.exit(launch("several", {processes}))
"""


def several(folder: Path, body: str, processes: int = 2) -> subprocess.Popen[str]:
    """Start ``processes`` processes that run ``body`` once they have met."""
    (folder / "several.py").write_text(MODULE.format(body=body))
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH.format(processes=processes)],
        cwd=folder,
        env=environment(PYTHONPATH=f"{REPOSITORY}:{folder}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=60)
    return process.returncode, out, said


def test_what_processes_tell_each_other_is_the_same_for_all(tmp_path):
    body = (
        "import torch; mine = torch.full((2,), float(ranks.rank + 1)); "
        "found = [ranks.total(mine.clone()).tolist(), ranks.from_leader(mine).tolist(), "
        "ranks.most(ranks.rank), ranks.to_leader(ranks.rank), list(ranks.share(range(5)))]; "
        "print(json.dumps(ranks.gathered(found)), flush=True)"
    )
    code, out, said = ended(several(tmp_path, body))
    assert code == 0, said
    leader, follower = json.loads(out.splitlines()[1])
    assert leader == [[3.0, 3.0], [1.0, 1.0], 1, [0, 1], [0, 2, 4]]
    assert follower == [[3.0, 3.0], [1.0, 1.0], 1, [], [1, 3]]


def test_processes_with_other_inputs_are_refused(tmp_path):
    body = "ranks.require_same(str(ranks.rank), 'inputs')"
    code, _, said = ended(several(tmp_path, body))
    assert code != 0 and "the processes of this stage have different inputs: ['0', '1']" in said


@pytest.mark.parametrize("rank", [0, 1], ids=["leader", "follower"])
def test_a_refusal_of_one_ends_all_with_its_code_and_its_sentence_once(rank, tmp_path):
    body = f"refuse('stage', 'no') if ranks.rank == {rank} else ranks.gathered(0)"
    code, _, said = ended(several(tmp_path, body))
    assert (code, said) == (2, "stage: no\n")


def test_a_killed_process_ends_one_that_computes_and_asks_nobody(tmp_path):
    body = "os.kill(os.getpid(), signal.SIGKILL) if ranks.rank else time.sleep(60)"
    start = time.monotonic()
    code, _, said = ended(several(tmp_path, body))
    assert code == 137 and "process 1 of 2 was killed (signal 9)" in said
    assert time.monotonic() - start < 45


def test_stopping_the_launcher_stops_all(tmp_path):
    process = several(tmp_path, "print(ranks.gathered(os.getpid()), flush=True); time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    pids = json.loads(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not [pid for pid in pids if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_alone_nothing_is_asked_of_anybody():
    assert ALONE == Ranks(0, 1) and ALONE.leads
    assert ALONE.gathered("x") == ["x"] == ALONE.to_leader("x")
    assert ALONE.most(3) == 3 and list(ALONE.share([1, 2])) == [1, 2]
    ALONE.require_same("a", "inputs")


def test_shares_cover_everything_once_and_a_lost_process_has_a_code_of_its_own():
    for world in (1, 2, 3, 7):
        shares = [Ranks(rank, world).share(range(11)) for rank in range(world)]
        assert sorted(item for share in shares for item in share) == list(range(11))
    assert LOST not in (0, 1, 2, 130, 143)
