"""From `prefect deploy` to a finished run, with a real server, pool and worker, and without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.git import git
from tests.pipeline.conftest import commit_all, processes_in
from tests.pipeline.prefect_server import PATIENCE, deployed_run, prefect, server, state_of, worker
from tests.pipeline.test_runner import steps_counted, until

__all__ = ["server"]
pytestmark = pytest.mark.slow
PRESET = """
about: counts less
config: none.json
gpu: a100-80gb
gpus: 1
rows: {visual_tokens: 1, text_tokens: 1, answer_tokens: 1}
predicted: {peak_gib: 1.0, micro_batch: 1}
params: {count: {steps: 2}}
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what a worker keeps in a folder of the test's; no preset, and nobody known to Git."""
    monkeypatch.setenv("DUALPRIV_STATE", str(tmp_path / "state"))
    for name in ("DUALPRIV_PRESET", "DUALPRIV_CLONE", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DUALPRIV_PYTHON", sys.executable)
    return tmp_path / "state"


@pytest.mark.parametrize(("kind", "frozen"), [("small_pipeline", "by_hand"), ("built_checkout", "pretrain")])
def test_finetune_local_runs_in_the_checkout(
    server: None, kind: str, frozen: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once with trivial stages, once with every stage of ours on a tiny model."""
    checkout: Path = request.getfixturevalue(kind)
    monkeypatch.chdir(checkout)
    run = deployed_run("local")
    log = prefect(*worker("local"))
    assert state_of(run) == "COMPLETED", log
    assert (checkout / "data/account/statement.json").exists()
    status = [sys.executable, "-m", "dvc", "status", "--json"]
    answer = subprocess.run(status, capture_output=True, text=True, check=True)
    assert set(json.loads(answer.stdout)) <= {frozen}, "only what is run by hand has no record here"
    assert processes_in(checkout) == []


def test_finetune_a100_runs_in_a_clone_and_brings_back_a_branch_without_a_gpu(
    server: None, small_pipeline: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small_pipeline / "presets").mkdir()
    (small_pipeline / "presets/less.yaml").write_text(PRESET)
    commit_all(small_pipeline)
    before = git(small_pipeline, "status", "--porcelain", "--ignored")
    monkeypatch.setenv("DUALPRIV_PRESET", "less")
    run = deployed_run("a100")
    log = prefect(*worker("a100"))
    assert state_of(run) == "COMPLETED", log
    assert git(small_pipeline, "status", "--porcelain", "--ignored") == before, "nobody's checkout is touched"
    [branch] = git(small_pipeline, "branch", "--list", "runs/*", "--format=%(refname:short)").splitlines()
    assert "steps: 2" in git(small_pipeline, "show", f"{branch}:params.yaml")
    assert "epsilon" in git(small_pipeline, "show", f"{branch}:data/account/statement.json")
    assert len(steps_counted(state)) == 2, "checkpoints lie with the worker's state"

    run = deployed_run("a100")
    log = prefect(*worker("a100"))
    assert state_of(run) == "COMPLETED" and "count: cached" in log, log


def test_what_is_not_committed_is_not_deployed(server: None, small_pipeline: Path) -> None:
    params = small_pipeline / "params.yaml"
    params.write_text(params.read_text().replace("steps: 3", "steps: 4"))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "a100"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert answer.returncode != 0 and "commit params.yaml, or restore what is there" in answer.stdout


def test_a_cancelled_run_ends_its_stage_and_is_not_tried_again(
    server: None, small_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = small_pipeline / "params.yaml"
    params.write_text(params.read_text().replace("steps: 3", "steps: 100000"))
    monkeypatch.setenv("SMALL_SECONDS", "0.2")
    run = deployed_run("local")
    with subprocess.Popen(
        [sys.executable, "-m", "prefect", "--no-prompt", *worker("local")], cwd="/"
    ) as process:
        until(lambda: steps_counted(small_pipeline), PATIENCE)
        prefect("flow-run", "cancel", run)
        process.wait(PATIENCE)
    assert state_of(run) == "CANCELLED"
    assert processes_in(small_pipeline) == []
    assert len(set(steps_counted(small_pipeline))) == 1, "one process took every step: no second attempt"
