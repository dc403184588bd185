"""Stored examples of every version are readable, hold together, and notice every change of a scalar."""

import json

import pytest
from stored_evidence import VERSIONS, edited, lied, read, replaced, scalars, stored

from stages.core.canonical import canonical_json
from stages.core.entry import quiet_accountants
from stages.privacy.audit import audit_of
from stages.privacy.evidence import CHARGES, LOCK, METRICS, PLAN, STATEMENT, TRACE
from stages.privacy.findings import is_sound

OF_ONE = [version for version in VERSIONS if version.startswith("1")]
quiet_accountants()


def errors(files):
    return [finding for finding in audit_of(read(files)).findings if finding.severity == "error"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_example_of_every_version_is_stored_and_holds(version: str) -> None:
    evidence = read(stored(version))
    audited = audit_of(evidence)
    assert evidence.version == int(version.partition(".")[0]) and not evidence.missing()
    assert is_sound(list(audited.findings)), audited.findings
    training = next(price for price in audited.priced if "finetune" in price.what)
    assert 7 < training.epsilon < 8 < training.checks["RDP"]
    told = [finding.problem for finding in audited.findings]
    if version == "2.0-private":
        (said,) = told
        assert "says epsilon 7.990 for 7.990280768616254: sentences were once rounded" in said
    else:
        assert evidence.version == 1 or not told


@pytest.mark.parametrize("file", [PLAN, TRACE, CHARGES, STATEMENT])
@pytest.mark.parametrize("version", OF_ONE)
def test_every_changed_scalar_is_noticed_though_dvc_lock_is_made_to_fit(version: str, file: str) -> None:
    """Negative control of the rebuild: DVC's record alone is not what catches the lie."""
    files = stored(version)
    value = json.loads(files[file])
    missed = []
    paths = [path for path in scalars(value) if not (path[0] == "steps" and path[1:2] and path[1] > 1)]
    for path in paths:
        if not errors(replaced(files, file, canonical_json(lied(value, path)))):
            missed.append(path)
    assert len(paths) > 10 and not missed


def test_the_first_evidence_has_no_clip_rules_and_the_last_of_version_1_has() -> None:
    assert "clip_rule" not in json.loads(stored("1.0")[PLAN])
    assert "clip_rule" in json.loads(stored("1.2")[PLAN])
    assert "attempts" in json.loads(stored("1.1")[TRACE])["steps"][0]


@pytest.mark.parametrize("version", OF_ONE)
def test_an_abandoned_run_of_any_early_form_is_charged(version: str) -> None:
    def abandon(trace):
        first = {"fingerprint": "ab" * 16} if version == "1.0" else {"run": "ab" * 16, "release": "cd" * 16}
        trace["abandoned"] = [{**first, "plan": json.loads(stored(version)[PLAN]), "steps": 3}]

    problems = [finding.problem for finding in errors(edited(stored(version), TRACE, abandon))]
    assert any("charges is" in problem for problem in problems), "three more steps are charged nowhere"


def test_evidence_without_a_ledger_is_a_warning_for_public_people_and_an_error_for_others() -> None:
    def private(value):
        value["population"]["public"] = False

    (warning,) = audit_of(read(stored("1.2"))).findings
    assert warning.severity == "warning" and "had no ledger" in warning.problem
    assert any("had no ledger" in found.problem for found in errors(edited(stored("1.2"), PLAN, private)))


@pytest.mark.parametrize(
    "abandoned",
    [None, {}, [None], [{}], [{"run": "a", "release": "b", "plan": {}, "steps": 1}], [{"fingerprint": 1}]],
)
def test_a_broken_list_of_abandoned_runs_is_a_finding_and_no_crash(abandoned: object) -> None:
    files = edited(stored("1.2"), TRACE, lambda trace: trace.update(abandoned=abandoned))
    assert {TRACE, CHARGES} & {finding.file for finding in errors(files)}


@pytest.mark.parametrize("value", [None, [], "x", 1, {}, {"version": 1}, {"version": True}, {"version": 9}])
@pytest.mark.parametrize("file", [PLAN, TRACE, CHARGES, STATEMENT, METRICS])
def test_a_file_of_another_form_is_a_finding_that_names_it(file: str, value: object) -> None:
    found = errors(replaced(stored("1.2"), file, canonical_json(value)))
    if file != METRICS or not isinstance(value, dict):
        assert file in {finding.file for finding in found}


@pytest.mark.parametrize("lock", ["", "stages: 1", "stages: {plan: []}", "stages: {plan: {outs: [1, {}]}}"])
def test_a_dvc_lock_of_another_form_is_findings_and_no_crash(lock: str) -> None:
    files = {**stored("1.2"), LOCK: lock.encode()}
    assert {PLAN, TRACE, CHARGES, STATEMENT} <= {finding.file for finding in errors(files)}
