"""``dualpriv compare`` on a small checkout: real experiments, found again, and a checkout left as it was."""

import csv
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from checkout import edit_params, run
from commands import commands
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[3]
GRID = """
epsilons: [4.0, 8.0]
starts: [0, 1]
choose_starts: [0, 1]
stand_in: {path: data/demonstration/public.parquet, rows: null, format: messages, unit: image_id, kind: kind,
           split: null, on_bad_record: stop}
params:
  sampling: {steps: 2}
  calibrate: {candidates: [[6, 3]], keep_fidelity: null, step_limit: 1.0, beside: []}
reference: plain
methods:
  - name: pruned
    without_noise: true
    params: {tokens: {select: dominant_contextual}, update: {prune: block}}
    choose: [{optim: {learning_rate: 0.01}}, {optim: {learning_rate: 0.02}}]
  - name: plain
    without_noise: true
    params: {tokens: {select: all, merge: none}, update: {prune: all}}
    choose: [{optim: {learning_rate: 0.01}}, {optim: {learning_rate: 0.02}}]
variants:
  of: pruned
  epsilon: 8.0
  starts: [0]
  list: [{name: random updates, group: control, params: {update: {prune: random}}}]
quick: {epsilons: [8.0], starts: [0], settings: 2, without_noise: false, variants: false, params: {}}
"""
SAYS = {"pruned": ("dominant_contextual", "block"), "plain": ("all", "all")}
NOBODY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def compare(checkout: Path, *more: str, check: bool = True) -> CompletedProcess[str]:
    """Compare where Git knows nobody."""
    command = (sys.executable, "-m", "pipeline.cli", "compare", "--quick", "--grid", "grid.yaml", *more)
    return run(checkout, *command, check=check, **NOBODY)


def experiments(checkout: Path) -> list[str]:
    return run(checkout, "git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.splitlines()


@pytest.mark.slow
def test_runs_are_experiments_that_are_found_again_and_the_checkout_stays(ran_checkout: Path) -> None:
    (ran_checkout / "grid.yaml").write_text(GRID)
    run(ran_checkout, "git", "add", "--all")
    somebody = ("-c", "user.name=a", "-c", "user.email=a@b")
    run(ran_checkout, "git", *somebody, "commit", "--quiet", "--message", "all")
    params = (ran_checkout / "params.yaml").read_bytes()
    said = compare(ran_checkout, "--out", "scratch/table").stdout
    assert run(ran_checkout, "git", "status", "--porcelain").stdout == ""
    assert (ran_checkout / "params.yaml").read_bytes() == params
    made = experiments(ran_checkout)
    with (ran_checkout / "scratch/table/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["pruned", "plain"]
    assert sorted(row["experiment"] for row in rows) == sorted(ref.rpartition("/")[2] for ref in made)
    for row in rows:
        assert 0 < float(row["spent"]) <= 8.0 and float(row["time_ratio"]) > 0
        ref = next(ref for ref in made if ref.endswith(row["experiment"]))
        own = YAML(typ="safe").load(run(ran_checkout, "git", "show", f"{ref}:params.yaml").stdout)
        assert (own["tokens"]["select"], own["update"]["prune"]) == SAYS[row["name"]], "nothing is inherited"
    assert float(rows[0]["bytes_ratio"]) < float(rows[1]["bytes_ratio"])
    assert "| pruned |" in said and (ran_checkout / "scratch/table/accuracy.svg").is_file()
    assert "Methods under one accountant" in (ran_checkout / "scratch/table/index.html").read_text()
    compare(ran_checkout, "--out", "scratch/again")
    assert experiments(ran_checkout) == made, "nothing is released twice"
    for name in ("README.md", "results.csv"):
        table, again = (ran_checkout / folder / name for folder in ("scratch/table", "scratch/again"))
        assert table.read_bytes() == again.read_bytes()
    edit_params(ran_checkout, {"clip: 0.1": "clip: -1.0"})
    refused = compare(ran_checkout, check=False)
    assert refused.returncode == 2 and "commit params.yaml, or restore" in refused.stderr
    run(ran_checkout, "git", *somebody, "commit", "--quiet", "--all", "--message", "wrong")
    refused = compare(ran_checkout, check=False)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "clip" in refused.stderr.splitlines()[-1]
    assert experiments(ran_checkout) == made


def test_people_who_are_not_public_and_folders_without_history_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dualpriv = commands(capsys, monkeypatch)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    status, _, said = dualpriv("compare")
    assert status == 2 and "presets/compare.yaml does not exist" in said
    (tmp_path / "grid.yaml").write_text(GRID)
    status, _, said = dualpriv("compare", "--grid", "grid.yaml")
    assert status == 2 and "git status" in said and "experiments need a clone of the repository" in said
    edit_params(tmp_path, {"public: true": "public: false"})
    status, _, said = dualpriv("compare", "--grid", "grid.yaml")
    assert status == 2 and "every run of a comparison is a release" in said and said.count("\n") == 1
    of_others = GRID.replace("\nparams:", "\nparams:\n  population: {name: others, public: true}")
    (tmp_path / "grid.yaml").write_text(of_others.replace("calibrate: {", "calibrate: {on: public, "))
    edit_params(tmp_path, {r"(calibrate:\n)  on: public": r"\1  on: train"})
    status, _, said = dualpriv("compare", "--grid", "grid.yaml")
    assert status == 2 and "before a comparison, profile and calibrate run as params.yaml has them" in said
