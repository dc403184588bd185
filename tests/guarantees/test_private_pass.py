"""A whole pass whose choices and figures are made on private units: planned, charged, accounted, audited."""

import json
import sys
from pathlib import Path

import pytest
from checkout import dvc, edit_params, run
from private_choices import chosen_privately


@pytest.mark.slow
def test_a_whole_pass_on_private_units_is_planned_charged_and_audited(built_checkout: Path) -> None:
    """The noise of training makes room for the other charges; every key is gone when all are accounted."""
    checkout = chosen_privately(built_checkout)
    dvc(checkout, "repro")
    charges = json.loads((checkout / "data/account/charges.json").read_text())
    assert charges["composition"] == "parallel"
    assert [(charge["stage"], charge["split"]) for charge in charges["charges"]] == [
        ("profile", "train"),
        ("calibrate", "train"),
        ("finetune", "train"),
        ("evaluate", "heldout"),
    ]
    assert len({charge["release"] for charge in charges["charges"]} - {None}) == 4
    plan = json.loads((checkout / "data/plan.json").read_text())
    statement = json.loads((checkout / "data/account/statement.json").read_text())
    assert statement["within_target"] and statement["epsilon"] > plan["target_epsilon"] - 0.1
    assert list((checkout / "scratch").rglob("run.key")) == []
    told = "from pipeline.cli import main; main()"
    verdict = json.loads(
        run(checkout, sys.executable, "-c", told, "audit", "--require-weights", "--json").stdout
    )
    assert verdict["verdict"] == "pass", verdict
    edit_params(checkout, {"on: train ": "on: public ", "release: private ": "release: public "})
    dvc(checkout, "repro", "plan")
    public = json.loads((checkout / "data/plan.json").read_text())
    assert public["noise_multiplier"] < plan["noise_multiplier"]
