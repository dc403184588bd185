"""Evidence names the accountant that decided, and says no smaller epsilon than it found."""

import json
from decimal import Decimal

import pytest
from honest_evidence import Run, files_of
from stored_evidence import read, replaced

from stages.core.canonical import canonical_json
from stages.core.entry import quiet_accountants
from stages.privacy.accounting import ACCOUNTANT, PURE, accountant_of, step_event
from stages.privacy.audit import audit_of
from stages.privacy.evidence import STATEMENT
from stages.privacy.rounding import rounded_up
from stages.privacy.stated_accountant import accountant_findings
from stages.privacy.statement import sentence, to_nearest

quiet_accountants()
GAUSSIAN = step_event(0.01, 1.0, 10)
LAPLACE = step_event(0.01, 20.0, 10, "laplace")


def test_the_deciding_accountant_is_pld_unless_all_noise_is_laplace() -> None:
    for groups, deciding in {
        ((GAUSSIAN,),): ACCOUNTANT,
        ((LAPLACE,),): PURE,
        ((LAPLACE,), ()): PURE,
        ((LAPLACE, GAUSSIAN),): ACCOUNTANT,
        ((LAPLACE,), (GAUSSIAN,)): ACCOUNTANT,
        ((), ()): ACCOUNTANT,
    }.items():
        assert accountant_of(groups, "add_or_remove_one") == deciding


@pytest.mark.parametrize(
    ("stated", "deciding", "severities"),
    [
        (ACCOUNTANT, ACCOUNTANT, []),
        (PURE, PURE, []),
        (PURE, ACCOUNTANT, ["error"]),
        (ACCOUNTANT, PURE, ["warning"]),
        ("dp_accounting 0.4.3 PLD", ACCOUNTANT, ["warning"]),
        ("dp_accounting 0.4.3 RDP", ACCOUNTANT, ["error"]),
        (None, PURE, ["error"]),
    ],
)
def test_an_accountant_that_did_not_decide_is_found(
    stated: object, deciding: str, severities: list[str]
) -> None:
    found = list(accountant_findings(STATEMENT, stated, deciding))
    assert [finding.severity for finding in found] == severities


def test_a_sentence_promises_no_less_than_was_spent_and_earlier_ones_are_told() -> None:
    run, spent, said = Run(), 0.0, ""
    while True:  # until rounding to the nearest number would promise less
        statement = json.loads(files_of(run)[STATEMENT])
        spent, said = statement["epsilon"], to_nearest(statement["epsilon"])
        if Decimal(said) < Decimal(spent):
            break
        run = Run(steps=run.steps + 1)
    assert Decimal(rounded_up(spent)) > Decimal(spent) and f"({rounded_up(spent)}, " in statement["sentence"]
    files = files_of(run)
    earlier = {**statement, "sentence": sentence(statement, to_nearest)}
    (found,) = audit_of(read(replaced(files, STATEMENT, canonical_json(earlier)))).findings
    assert found.severity == "warning" and f"says epsilon {said} for {spent}" in found.problem
    lied = {**statement, "sentence": statement["sentence"].replace(rounded_up(spent), "1.000")}
    assert [
        finding.severity
        for finding in audit_of(read(replaced(files, STATEMENT, canonical_json(lied)))).findings
    ] == ["error"]
