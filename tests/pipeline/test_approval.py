"""Before a stage spends, the flow asks a person; an answer is for one stage on one set of inputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.approval import question
from pipeline.git import git
from stages.core.files import read_json
from stages.core.spending import Spending
from stages.training.approved import VARIABLE
from tests.pipeline.conftest import commit_all, processes_in
from tests.pipeline.prefect_server import call, deployed_run, log_of, prefect, server, state_of, worker
from tests.pipeline.test_runner import steps_counted

__all__ = ["server"]
SPENDING = Spending(
    stage="finetune", population="ward 3", what="noise", remains="half", fingerprint="ab" * 16
)


@pytest.fixture
def asking(small_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a committed small checkout whose long stage spends."""
    monkeypatch.setenv("SMALL_ASKS", "1")
    monkeypatch.setenv("DUALPRIV_PYTHON", sys.executable)
    commit_all(small_pipeline)
    return small_pipeline


def dualpriv(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_question_says_what_on_what_and_what_remains() -> None:
    said = question(SPENDING)
    for part in ("finetune", "ward 3", "noise", "half", "ab" * 16, "limit of the ledger stands"):
        assert part in said


@pytest.mark.slow
def test_a_run_is_suspended_until_somebody_says_yes_and_the_ledger_of_the_stage_says_who(
    server: None, asking: Path
) -> None:
    run = deployed_run("local", "approval=person")
    prefect(*worker("local"))
    assert state_of(run) == "PAUSED" and steps_counted(asking) == [], "asked before anything was spent"
    assert processes_in(asking) == [], "nothing waits on a GPU"
    shown = json.dumps(
        call(f"/flow_runs/{run}/input/filter", {"prefix": "", "limit": 10, "exclude_keys": []})
    )
    assert "3 steps" in shown and "all of them" in shown
    name = call(f"/flow_runs/{run}")["name"]
    assert dualpriv("approve", name, "--by", "Ada", "--reason", "agreed in writing").returncode == 0
    prefect(*worker("local"))
    assert state_of(run) == "COMPLETED", log_of(run)
    kept = read_json(asking / "scratch/count/approval.json")
    assert (kept["by"], kept["reason"]) == ("Ada", "agreed in writing")
    assert log_of(run).count("count: approved by Ada") == 1

    again = deployed_run("local", "approval=person")
    prefect(*worker("local"))
    assert state_of(again) == "COMPLETED", "what DVC has costs nothing, and nobody is asked"
    refused = dualpriv("approve", name, "--by", "Ada", "--reason", "again")
    assert refused.returncode == 2 and "no flow runs" in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("second", ["yes", "no"])
def test_a_forced_stage_runs_once_however_often_the_run_is_suspended_and_what_it_left_comes_back(
    server: None, asking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    monkeypatch.setenv("SMALL_ASKS", "twice")
    monkeypatch.setenv("DUALPRIV_STATE", str(tmp_path / "state"))
    run = deployed_run("a100", "approval=person", 'force=["count"]')
    for more in ((), ("--deny",) * (second == "no")):
        prefect(*worker("a100"))
        assert state_of(run) == "PAUSED", log_of(run)
        shown = dualpriv("approve", run).stdout
        assert "# May " in shown and "spend?" in shown and state_of(run) == "PAUSED", "shown, not answered"
        assert dualpriv("approve", run, "--by", "Ada", "--reason", "agreed", *more).returncode == 0
        handed_over = git(asking, "branch", "--list", "runs/*", "--format=%(refname:short)")
    prefect(*worker("a100"))
    assert state_of(run) == ("COMPLETED" if second == "yes" else "FAILED"), log_of(run)
    said = log_of(run).splitlines()
    assert said.count("count: ran") == said.count("count: approved by Ada: agreed") == 1, said
    [branch] = git(asking, "branch", "--list", "runs/*", "--format=%(refname:short)").splitlines()
    assert branch == handed_over, "before somebody was asked a second time"
    assert "models/total.json" in git(asking, "show", f"{branch}:dvc.lock")
    files = git(asking, "ls-tree", "-r", "--name-only", branch).splitlines()
    assert ("data/account/statement.json" in files) is (second == "yes")


@pytest.mark.slow
def test_no_is_the_end_of_the_run_and_nothing_is_spent(server: None, asking: Path) -> None:
    run = deployed_run("local", "approval=person")
    prefect(*worker("local"))
    assert dualpriv("approve", run, "--by", "Ada", "--reason", "too much", "--deny").returncode == 0
    prefect(*worker("local"))
    assert state_of(run) == "FAILED" and "Ada did not approve: too much" in log_of(run)
    assert steps_counted(asking) == []


@pytest.mark.slow
def test_approval_none_asks_nobody(server: None, asking: Path) -> None:
    run = deployed_run("local", "approval=none")
    prefect(*worker("local"))
    assert state_of(run) == "COMPLETED" and read_json(asking / "scratch/count/approval.json") is None


@pytest.mark.slow
def test_a_stage_that_was_not_to_run_spends_nothing_if_it_does(asking: Path) -> None:
    """The result that DVC had a moment ago is gone."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "count"]
    subprocess.run([*command[:-1], "start"], check=True)
    found = subprocess.run(command, env=os.environ | {VARIABLE: "nobody"}, capture_output=True, text=True)
    assert found.returncode != 0 and "nobody was asked" in found.stderr
    assert steps_counted(asking) == []
