"""What re-runs after a change: the stages that use it and what follows, nothing before."""

import json
import sys
from pathlib import Path

import pytest
from checkout import dvc, edit_params, run

from pipeline import graph
from stages.core.closure import import_closure

NAMES = tuple(name for name in graph.NAMES if name != "pretrain")
"""The stages that `dvc repro` runs: pretrain is frozen."""


def stale(checkout: Path) -> set[str]:
    """Return the stages whose code, parameters or inputs have changed."""
    return set(json.loads(dvc(checkout, "status", "--json").stdout))


def test_a_finished_run_is_clean_and_runs_nothing_again(ran_checkout: Path) -> None:
    assert stale(ran_checkout) == set()
    again = run(ran_checkout, sys.executable, "-m", "dvc", "repro")
    assert "Running stage" not in again.stdout


def test_editing_one_privacy_file_makes_stale_exactly_the_stages_that_import_it(ran_checkout: Path) -> None:
    for file in ("stages/privacy/clipping.py", "stages/privacy/statement.py"):
        path = ran_checkout / file
        before = path.read_text()
        path.write_text(before + "\n# edited\n")
        importers = {name for name in NAMES if Path(file) in import_closure(f"stages.{name}", ran_checkout)}
        assert stale(ran_checkout) == importers
        assert importers and "ingest" not in importers and "encode" not in importers
        path.write_text(before)


def test_a_choice_hangs_on_the_records_it_is_made_on_and_on_no_others(ran_checkout: Path) -> None:
    (ran_checkout / "data/records/train/another").write_text("record")
    assert {"encode"} <= stale(ran_checkout) and not {"profile", "calibrate"} & stale(ran_checkout)
    edit_params(ran_checkout, {"on: public ": "on: train "})
    changed = json.loads(dvc(ran_checkout, "status", "--json").stdout)
    for name in ("profile", "calibrate"):
        dependencies = next(part["changed deps"] for part in changed[name] if "changed deps" in part)
        assert "data/records/train" in dependencies and "data/records/public" not in dependencies


@pytest.mark.slow
def test_another_epsilon_plans_again_and_leaves_what_comes_before(ran_checkout: Path) -> None:
    run(ran_checkout, "git", "add", "--all")
    run(ran_checkout, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "ran")
    done = dvc(
        ran_checkout,
        "exp",
        "run",
        "-S",
        "privacy.epsilon=3",
        **{f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    )
    ran = {name for name in (*NAMES, "pretrain") if f"Running stage '{name}'" in done.stdout + done.stderr}
    assert ran == {"plan", "finetune", "canaries", "account", "evaluate", "report"}
    assert json.loads((ran_checkout / "data/account/statement.json").read_text())["epsilon"] <= 3


def test_stages_find_their_interpreter_from_a_shell_that_has_activated_nothing(ran_checkout: Path) -> None:
    (ran_checkout / ".venv").symlink_to(sys.prefix)
    (ran_checkout / "params.yaml").write_text(
        (ran_checkout / "params.yaml").read_text().replace("epsilon: 8.0", "epsilon: 7.0")
    )
    script = Path(sys.executable).with_name("dvc")
    done = run(
        ran_checkout, "env", "-i", "PATH=/usr/bin:/bin", f"HOME={ran_checkout}", str(script), "repro", "plan"
    )
    assert "Running stage 'plan'" in done.stdout
