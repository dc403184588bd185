"""A person's word is for one set of inputs, by name and with a reason."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from stages.privacy.approval import Approval, NotAsked
from stages.training.approved import NOBODY, VARIABLE, approval_given

INPUTS = "ab" * 16
SAID = Approval(by="Ada", reason="agreed in writing", fingerprint=INPUTS, asked_in="cd" * 16)


def given(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setenv(VARIABLE, value if isinstance(value, str) else json.dumps(value))


def test_an_approval_reaches_the_stage_it_was_given_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert approval_given(INPUTS) is None, "no flow asks"
    given(monkeypatch, asdict(SAID))
    assert approval_given(INPUTS) == SAID


def test_an_approval_of_other_inputs_is_worth_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, asdict(SAID))
    with pytest.raises(ValueError, match="Ada approved a run on other inputs"):
        approval_given("cd" * 16)


def test_that_nobody_was_asked_reaches_the_stage_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ledger makes of it: tests/stages/ledger/test_approved.py."""
    given(monkeypatch, NOBODY)
    assert isinstance(approval_given(INPUTS), NotAsked)


@pytest.mark.parametrize("change", [{"by": " "}, {"reason": ""}, {"by": "A\nB"}, {"reason": "x" * 201}])
def test_an_answer_names_somebody_and_a_reason_in_plain_text(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be a line of 1 to 200 characters"):
        Approval(**asdict(SAID) | change)
