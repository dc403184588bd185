"""``dualpriv sweep`` on a small checkout: experiments that are found again, one ledger, one table."""

import csv
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from checkout import edit_params, run
from runs import chain

from tests.pipeline.conftest import commit_all

GRID = "grid:\n  privacy.epsilon: [3.0, 8.0]\n  update.prune: [all, block]\n"
NOBODY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def sweep(checkout: Path, *more: str, check: bool = True) -> CompletedProcess[str]:
    """Sweep where Git knows nobody, with a Prefect of its own that ends with the command."""
    home = {"PREFECT_HOME": str(checkout.parent / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = (
        sys.executable,
        "-m",
        "pipeline.cli",
        "sweep",
        "sweep.yaml",
        "--out",
        "scratch/sweep.csv",
        *more,
    )
    return run(checkout, *command, check=check, **NOBODY, **home)


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
