"""A person is told what a stage would reserve, on whom and what remains; asking reserves nothing."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from checkout import run
from private_choices import chosen_privately, ready_for
from runs import chain, prepared, stage

from stages.privacy.approval import Approval
from stages.training.approved import VARIABLE


def asked(checkout: Path, name: str) -> dict[str, Any] | None:
    done = run(checkout, sys.executable, "-m", "stages.core.asked", name)
    found: dict[str, Any] | None = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_training_is_asked_about_until_it_has_begun_and_the_ledger_keeps_who_approved(
    encoded_checkout: Path,
) -> None:
    checkout = prepared(encoded_checkout, steps=6)
    before = len(chain(checkout))
    spending = asked(checkout, "finetune")
    assert spending is not None and len(chain(checkout)) == before
    assert (spending["stage"], spending["population"]) == ("finetune", "tiny")
    assert (
        "6 times" in spending["what"] and "epsilon" in spending["what"] and "split train" in spending["what"]
    )
    assert "declared public" in spending["remains"]
    said = Approval(by="Ada", reason="agreed", fingerprint=spending["fingerprint"], asked_in="ab" * 16)
    wrong = asdict(said) | {"fingerprint": "0" * 32}
    refused = stage(checkout, "finetune", **{VARIABLE: json.dumps(wrong)})
    assert refused.returncode == 2 and "approved a run on other inputs" in refused.stderr
    assert len(chain(checkout)) == before, "nothing is reserved on another approval"
    assert stage(checkout, "finetune", **{VARIABLE: json.dumps(asdict(said))}).returncode == 0
    assert [entry.body.approval for entry in chain(checkout) if entry.kind == "reserve"] == [said]
    assert asked(checkout, "finetune") is None, "DVC has not recorded it: going on is nothing new"


@pytest.mark.parametrize("name", ["profile", "calibrate", "evaluate"])
def test_what_looks_at_public_records_only_spends_nothing(encoded_checkout: Path, name: str) -> None:
    assert asked(encoded_checkout, name) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["profile", "calibrate", "evaluate"])
def test_a_private_choice_is_asked_about(encoded_checkout: Path, name: str) -> None:
    spending = asked(ready_for(name, chosen_privately(encoded_checkout)), name)
    assert spending is not None and "Gaussian noise" in spending["what"]
    assert ("heldout" if name == "evaluate" else "train") in spending["what"]
    assert spending["remains"]
