"""What people who are not public may lose in all: refused before the first batch, whatever one tries."""

import json
import os
import re
import secrets
import sys
from pathlib import Path

import pytest
from checkout import dvc, edit_params, run, write_records
from runs import steps_begun

from models import rows

pytestmark = pytest.mark.slow
NOBODY = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
def people(built_checkout) -> Path:
    """Return a checkout whose population is not declared public, and may spend epsilon 10 in all."""
    folder = built_checkout / "data/patients"
    write_records(folder / "records.parquet", rows(24, rows_per_unit=3))
    (folder / "salt").write_bytes(secrets.token_bytes(32))
    edits = {
        r"path: data/demonstration/private.parquet.*": "path: data/patients",
        r"(path: data/patients\n +)rows: null.*": r"\1rows: records.parquet",
        r"public: true": "public: false",
        r"(evaluate:\n +)release: public": r"\g<1>release: private",
        r"(limit:.*\n +)epsilon: \S+": r"\g<1>epsilon: 10.0",
    }
    edit_params(built_checkout, edits)
    return built_checkout


def ledger(checkout: Path) -> dict:
    """Return the account of the one population in the ledger, and its releases."""
    done = run(checkout, sys.executable, "-m", "pipeline.cli", "ledger", "show", "--json")
    (found,) = json.loads(done.stdout)["populations"]
    return {**found["account"], "releases": found["releases"]}


def test_a_forced_rerun_and_an_edited_record_meet_the_same_limit_with_the_arithmetic(people):
    dvc(people, "repro", "account")
    before, trace = ledger(people), (people / "data/finetune/trace.json").read_bytes()
    assert 0 < before["spent"] <= before["budget"]
    refused = dvc(people, "repro", "--force", "--single-item", "finetune", check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and "over the limit of population 'tiny'" in said
    numbers = re.search(
        r"needs (\S+) and (\S+) remains.*budget (\S+) - spent (\S+) - reserved (\S+) in", said
    )
    assert numbers is not None, said
    needs, remains, budget, spent, reserved = map(float, numbers.groups())
    assert needs > remains == pytest.approx(budget - spent - reserved, rel=1e-4)
    assert ledger(people) == before
    records = rows(24, rows_per_unit=3)
    changed = type(records[0])(**{**vars(records[0]), "kind": "other"})
    write_records(people / "data/patients/records.parquet", [changed, *records[1:]])
    again = dvc(people, "repro", "finetune", check=False)
    assert "over the limit of population 'tiny'" in again.stdout + again.stderr
    assert ledger(people) == before
    assert steps_begun(people) <= 0 and trace


def test_a_queue_of_five_epsilons_stops_when_the_budget_is_gone(people):
    place = str(people / "scratch/ledger.sqlite3")
    run(people, "git", "add", "-A")
    run(people, "git", "commit", "-qm", "before", **NOBODY)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # a worker looks for dvc
    edit = {"DUALPRIV_LEDGER": place, "PATH": path, **NOBODY}
    for epsilon in (3.0, 3.5, 4.0, 4.5, 5.0):
        dvc(people, "exp", "run", "--queue", "-S", f"privacy.epsilon={epsilon}", **edit)
    dvc(people, "exp", "run", "--run-all", check=False, **edit)
    found = ledger(people)
    assert {release["state"] for release in found["releases"]} == {"settled"}
    trained = [release for release in found["releases"] if release["stage"] == "finetune"]
    assert 1 <= len(trained) < 5
    assert 0.5 * found["budget"] < found["spent"] <= found["budget"]
    tasks = dvc(people, "queue", "status").stdout.splitlines()
    refused = [task.split()[0] for task in tasks if task.rstrip().endswith("Failed")]
    assert len(refused) == 5 - len(trained)
    assert "over the limit of population 'tiny'" in dvc(people, "queue", "logs", refused[0]).stdout
