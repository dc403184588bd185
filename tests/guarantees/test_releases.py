"""What a run begins is charged once, and people who are not public are released once."""

import json
from pathlib import Path

import pytest
from checkout import dvc, edit_params
from runs import kill_at, prepared, stage, steps_begun, training_charges


def test_a_forced_rerun_is_a_fresh_release(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    dvc(checkout, "repro", "account")
    first = json.loads((checkout / "data/finetune/trace.json").read_text())
    dvc(checkout, "repro", "--force", "--single-item", "finetune")
    second = json.loads((checkout / "data/finetune/trace.json").read_text())
    assert first["fingerprint"] == second["fingerprint"]
    assert first["release"] != second["release"]
    assert first["adapter"]["adapter_model.safetensors"] != second["adapter"]["adapter_model.safetensors"]


@pytest.mark.slow
def test_a_finished_run_that_no_statement_covers_is_charged_with_the_next(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    dvc(checkout, "repro", "finetune")
    dvc(checkout, "repro", "--force", "--single-item", "finetune")
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    dvc(checkout, "repro", "account")
    charges = training_charges(checkout)
    assert [charge["event"]["count"] for charge in charges] == [6, 6, 6]
    assert len({charge["release"] for charge in charges}) == 3
    dvc(checkout, "repro", "--force", "--single-item", "account")
    assert training_charges(checkout) == charges
    kept = sorted(path.name for path in (checkout / "scratch/finetune/retired").iterdir())
    assert kept == sorted(charge["release"] for charge in charges)
    assert [path for path in (checkout / "scratch/finetune").rglob("*") if path.suffix == ".key"] == []


@pytest.mark.slow
def test_an_abandoned_run_is_charged_for_every_step_it_began(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=12)
    kill_at(checkout, 4, 0.0)
    begun = steps_begun(checkout)
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    dvc(checkout, "repro", "account", DUALPRIV_NEW_RELEASE="1")
    assert [charge["event"]["count"] for charge in training_charges(checkout)] == [12, begun]
    statement = json.loads((checkout / "data/account/statement.json").read_text())
    plan = json.loads((checkout / "data/plan.json").read_text())
    assert statement["epsilon"] > plan["epsilon"]


def not_public(checkout: Path) -> Path:
    """Plan for people who are not public, on what was encoded."""
    plan = checkout / "data/plan.json"
    content = json.loads(plan.read_text())
    content["population"]["public"] = False
    plan.unlink()  # a link into DVC's cache
    plan.write_text(json.dumps(content))
    return checkout


def test_people_who_are_not_public_are_released_once_unless_a_new_release_is_meant(encoded_checkout):
    checkout = not_public(encoded_checkout)
    for name in ("finetune", "account"):
        done = stage(checkout, name)
        assert done.returncode == 0, done.stderr
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    refused = stage(checkout, "finetune")
    assert refused.returncode == 2
    assert "already released on this machine" in refused.stderr and "--new-release" in refused.stderr
    again = stage(checkout, "finetune", DUALPRIV_NEW_RELEASE="1")
    assert again.returncode == 0, again.stderr


def test_a_killed_run_goes_on_and_another_that_could_not_be_released_is_refused_before_its_first_step(
    encoded_checkout,
):
    checkout = not_public(encoded_checkout)
    kill_at(checkout, 2, 0.0, "stages.finetune")
    begun = steps_begun(checkout)
    assert begun >= 2
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    refused = stage(checkout, "finetune", DUALPRIV_NEW_RELEASE="1")
    assert refused.returncode == 2 and "over the target" in refused.stderr
    assert steps_begun(checkout) == begun and len(list((checkout / "scratch/finetune").glob("*/"))) == 1
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.99"})
    for name in ("finetune", "account"):
        done = stage(checkout, name)
        assert done.returncode == 0, done.stderr
    assert [charge["event"]["count"] for charge in training_charges(checkout)] == [6]


def test_half_precision_is_refused_for_people_who_are_not_public(encoded_checkout):
    checkout = not_public(encoded_checkout)
    edit_params(checkout, {"precision: float32": "precision: bfloat16"})
    refused = stage(checkout, "finetune")
    assert refused.returncode == 2 and "set model.precision to float32" in refused.stderr
    assert steps_begun(checkout) == -1
