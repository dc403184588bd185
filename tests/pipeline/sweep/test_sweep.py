"""``dualpriv sweep`` on a small checkout: experiments that are found again, one ledger, one table."""

import csv
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from checkout import edit_params, environment, run
from runs import chain

from stages.training.intents import read_begun
from tests.pipeline.conftest import commit_all
from tests.pipeline.prefect_server import PATIENCE
from tests.pipeline.test_runner import until

GRID = "grid:\n  privacy.epsilon: [3.0, 8.0]\n  update.prune: [all, block]\n"
NOBODY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


COMMAND = (sys.executable, "-m", "pipeline.cli", "sweep", "sweep.yaml", "--out", "scratch/sweep.csv")


def alone(checkout: Path) -> dict[str, str]:
    """Return the variables with which Git knows nobody and Prefect's server ends with the command."""
    home = {"PREFECT_HOME": str(checkout.parent / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return NOBODY | home


def sweep(checkout: Path, *more: str, check: bool = True) -> CompletedProcess[str]:
    """Sweep."""
    return run(checkout, *COMMAND, *more, check=check, **alone(checkout))


def trained(checkout: Path) -> int:
    return sum(entry.kind == "settle" for entry in chain(checkout))


@pytest.fixture
def checkout(ran_checkout: Path) -> Path:
    """Return a committed checkout with a grid of four points."""
    (ran_checkout / "sweep.yaml").write_text(GRID)
    commit_all(ran_checkout)
    return ran_checkout


@pytest.mark.slow
def test_four_points_share_one_ledger_and_what_dvc_has_and_make_one_table(checkout: Path) -> None:
    before = trained(checkout)
    said = sweep(checkout).stdout
    assert "4 runs, 4 of them new" in said
    assert run(checkout, "git", "status", "--porcelain").stdout == ""
    assert trained(checkout) == before + 3, "the fourth is what the checkout has run: DVC has it"
    with (checkout / "scratch/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = [(row["privacy.epsilon"], row["update.prune"]) for row in rows]
    assert points == [("3.0", "all"), ("3.0", "block"), ("8.0", "all"), ("8.0", "block")]
    assert all(float(row["epsilon"]) <= float(row["privacy.epsilon"]) for row in rows)
    again = sweep(checkout).stdout
    assert "4 runs, 0 of them new" in again and trained(checkout) == before + 3


@pytest.mark.slow
def test_people_who_are_not_public_are_asked_about(checkout: Path) -> None:
    edit_params(checkout, {"public: true": "public: false"})
    commit_all(checkout)
    refused = sweep(checkout, check=False)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert "4 releases on population 'tiny', which is not public: say --spend" in refused.stderr


def written(checkout: Path, grid: str) -> None:
    (checkout / "sweep.yaml").write_text(grid)
    commit_all(checkout)


def experiments(checkout: Path) -> int:
    return len(run(checkout, "git", "for-each-ref", "refs/exps").stdout.splitlines())


@pytest.mark.slow
def test_after_a_point_that_fails_no_other_begins_and_its_sentence_is_told(checkout: Path) -> None:
    written(checkout, "grid:\n  privacy.epsilon: [0.0, 3.0, 4.0]\n")
    before = trained(checkout)
    failed = sweep(checkout, "--jobs", "1", check=False)
    assert failed.returncode == 2, failed.stderr
    assert "epsilon" in failed.stderr.splitlines()[-1] and "Traceback" not in failed.stderr
    assert trained(checkout) == before and experiments(checkout) == 0
    written(checkout, "grid:\n  privacy.epsilon: [3.0]\n")
    assert "1 runs, 1 of them new" in sweep(checkout).stdout


def steps_begun(checkout: Path) -> int:
    """Return how many steps the run that is not put away has begun."""
    return sum(len(read_begun(path)) for path in (checkout / "scratch/finetune").glob("*/intents.jsonl"))


@pytest.mark.slow
def test_ctrl_c_ends_the_points_that_run_and_begins_no_other(checkout: Path) -> None:
    written(checkout, "grid:\n  sampling.steps: [3000, 3001, 3002]\n")
    begun = len(chain(checkout))
    with (checkout.parent / "said").open("w") as said:
        process = subprocess.Popen(
            [*COMMAND, "--jobs", "1"],
            cwd=checkout,
            env=environment(**alone(checkout)),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        until(lambda: steps_begun(checkout) > 2 or process.poll() is not None, PATIENCE)
        assert process.poll() is None, (checkout.parent / "said").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
    assert len(chain(checkout)) == begun + 1, "one was reserved, and no other"
    left = list((checkout / "scratch/finetune").glob("*/checkpoint.safetensors"))
    assert len(left) == 1, "its finished steps are kept"
    assert run(checkout, "git", "status", "--porcelain").stdout == "" and experiments(checkout) == 0
