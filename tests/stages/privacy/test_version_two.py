"""Evidence of version 2 is read under its own names; nothing of it passes for version 3, or the other way."""

import json
from typing import Any

import pytest
from forging import HONEST
from honest_evidence import files_of
from stored_evidence import Files, edited, lied, read, replaced, scalars, stored

from stages.core.canonical import canonical_json
from stages.core.entry import quiet_accountants
from stages.privacy.audit import audit_of
from stages.privacy.evidence import CALIBRATION, CHARGES, PLAN, PRUNING, STATEMENT, TRACE
from stages.privacy.plan import read_plan
from stages.privacy.version_two import plan_of_a_run, plan_of_two

quiet_accountants()
OF_TWO = "2.0-private"


def renamed(files: Files, before: str, after: str) -> Files:
    return {after if file == before else file: content for file, content in files.items()}


def problems(files: Files, file: str) -> list[str]:
    return [found.problem for found in audit_of(read(files)).findings if found.file == file]


@pytest.mark.parametrize(
    ("files", "before", "after"),
    [(files_of(HONEST), PRUNING, CALIBRATION), (stored(OF_TWO), CALIBRATION, PRUNING)],
    ids=["version 3", "version 2"],
)
def test_the_choice_under_the_name_of_another_version_is_missing(
    files: Files, before: str, after: str
) -> None:
    assert not read(files).missing()
    assert read(renamed(files, before, after)).missing() == [before]
    both = {**files, after: files[before]}
    assert not problems(files, after)
    assert "belongs to evidence of another version: remove it" in problems(both, after)


_SLOW = [pytest.param(file, marks=pytest.mark.slow) for file in (PLAN, CHARGES, STATEMENT)]


@pytest.mark.parametrize("file", [TRACE, *_SLOW])
def test_every_changed_scalar_is_noticed_though_dvc_lock_is_made_to_fit(file: str) -> None:
    files, missed = stored(OF_TWO), []
    value = json.loads(files[file])
    paths = [path for path in scalars(value) if not (path[0] == "steps" and path[1:2] and path[1] > 1)]
    for path in paths:
        found = audit_of(read(replaced(files, file, canonical_json(lied(value, path))))).findings
        if not any(finding.severity == "error" for finding in found):
            missed.append(path)
    assert len(paths) > 10 and not missed


def test_what_version_2_did_not_say_is_filled_in_and_refused_where_it_says_it() -> None:
    plan = json.loads(stored(OF_TWO)[PLAN])
    assert plan_of_two(plan, PLAN).estimator == "gradient" and plan_of_two(plan, PLAN).directions is None
    with pytest.raises(ValueError, match=f"^{PLAN} is of version 2, which had no directions, estimator$"):
        plan_of_two({**plan, "estimator": "gradient", "directions": None}, PLAN)

    def tell(document: dict[str, Any]) -> None:
        document["steps"][0]["noise"] = "laplace"

    files = edited(stored(OF_TWO), TRACE, tell)
    assert "is of version 2, which had no noise" in problems(files, TRACE)


def test_a_plan_of_another_version_or_form_is_one_sentence() -> None:
    plan = json.loads(stored(OF_TWO)[PLAN])
    for change in ({"version": 3}, {"extra": 1}, {"delta": "x"}):
        with pytest.raises(ValueError, match=f"^{PLAN}"):
            plan_of_two({**plan, **change}, PLAN)


def test_a_run_that_version_2_began_is_charged_under_its_plan() -> None:
    old = json.loads(stored(OF_TWO)[PLAN])
    now = json.loads(files_of(HONEST)[PLAN])
    assert plan_of_a_run(old, "its plan") == plan_of_two(old, "its plan")
    assert plan_of_a_run(now, "its plan") == read_plan(now, "its plan")
    with pytest.raises(ValueError, match="version 1"):
        plan_of_a_run({**now, "version": 1}, "its plan")
