"""What a run begins is charged once, and every release is in the ledger before its first record is read."""

import json
from pathlib import Path

import pytest
from checkout import dvc, edit_params
from runs import chain, kill_at, prepared, stage, steps_begun

from stages.privacy.history import history_of


def releases(checkout: Path) -> dict[str, tuple[str, int]]:
    """Return the state of each release of the population and how many steps it counts for."""
    found = history_of("tiny", chain(checkout)).releases.values()
    return {release.release: (release.state, release.event.get("count", 0)) for release in found}


@pytest.mark.slow
def test_a_forced_rerun_is_a_fresh_release_and_the_ledger_counts_both(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    dvc(checkout, "repro", "account")
    first = json.loads((checkout / "data/finetune/trace.json").read_text())
    dvc(checkout, "repro", "--force", "--single-item", "finetune")
    second = json.loads((checkout / "data/finetune/trace.json").read_text())
    assert first["fingerprint"] == second["fingerprint"]
    assert first["release"] != second["release"]
    assert first["adapter"]["adapter_model.safetensors"] != second["adapter"]["adapter_model.safetensors"]
    assert releases(checkout) == {first["release"]: ("settled", 6), second["release"]: ("settled", 6)}


@pytest.mark.slow
def test_accounting_again_spends_nothing_and_leaves_no_key(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    dvc(checkout, "repro", "finetune")
    dvc(checkout, "repro", "--force", "--single-item", "finetune")
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    dvc(checkout, "repro", "account")
    before = releases(checkout)
    assert list(before.values()) == [("settled", 6)] * 3
    statement = json.loads((checkout / "data/account/statement.json").read_text())
    assert statement["population_total"]["releases"] == 3
    assert statement["population_total"]["epsilon"] > statement["epsilon"]
    dvc(checkout, "repro", "--force", "--single-item", "account")
    assert releases(checkout) == before
    kept = sorted(path.name for path in (checkout / "scratch/finetune/retired").iterdir())
    assert kept == sorted(before)
    assert [path for path in (checkout / "scratch/finetune").rglob("*") if path.suffix == ".key"] == []


@pytest.mark.slow
def test_an_abandoned_run_is_charged_for_every_step_it_began(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=12)
    kill_at(checkout, 4, 0.0)
    begun = steps_begun(checkout)
    assert list(releases(checkout).values()) == [("reserved", 12)], "at its worst case until it is given up"
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    refused = dvc(checkout, "repro", "finetune", check=False)
    assert "cannot go on, for its inputs have changed" in refused.stdout + refused.stderr
    dvc(checkout, "repro", "account", DUALPRIV_NEW_RELEASE="1")
    assert list(releases(checkout).values()) == [("abandoned", begun), ("settled", 12)]
    statement = json.loads((checkout / "data/account/statement.json").read_text())
    assert statement["population_total"]["epsilon"] > statement["cross_checks"]["RDP"]


def not_public(checkout: Path, epsilon: float) -> Path:
    """Plan for people who are not public and may spend ``epsilon`` in all, on what was encoded."""
    plan = checkout / "data/plan.json"
    content = json.loads(plan.read_text())
    content["population"]["public"] = False
    plan.unlink()  # a link into DVC's cache
    plan.write_text(json.dumps(content))
    edit_params(checkout, {r"(limit:.*\n +)epsilon: \S+": rf"\g<1>epsilon: {epsilon}"})
    return checkout


def test_people_who_are_not_public_are_released_within_their_limit_and_no_further(encoded_checkout):
    checkout = not_public(encoded_checkout, 10.0)
    done = stage(checkout, "finetune")
    assert done.returncode == 0, done.stderr
    before = chain(checkout)
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    refused = stage(checkout, "finetune", DUALPRIV_NEW_RELEASE="1")
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    assert "over the limit of population 'tiny'" in refused.stderr and "spent" in refused.stderr
    assert chain(checkout) == before


@pytest.mark.slow
def test_a_killed_run_goes_on_and_another_that_does_not_fit_beside_it_is_refused_before_its_first_step(
    encoded_checkout,
):
    checkout = not_public(encoded_checkout, 10.0)
    kill_at(checkout, 5, 0.0, "stages.finetune")
    begun = steps_begun(checkout)
    assert begun >= 5
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    stopped = stage(checkout, "finetune")
    assert stopped.returncode == 2 and "cannot go on, for its inputs have changed" in stopped.stderr
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.99"})
    done = stage(checkout, "finetune")
    assert done.returncode == 0, done.stderr
    assert list(releases(checkout).values()) == [("settled", 6)]


@pytest.mark.slow
def test_half_precision_is_refused_for_people_who_are_not_public(encoded_checkout):
    checkout = not_public(encoded_checkout, 10.0)
    edit_params(checkout, {"precision: float32": "precision: bfloat16"})
    refused = stage(checkout, "finetune")
    assert refused.returncode == 2 and "set model.precision to float32" in refused.stderr
    edit_params(checkout, {"public: true": "public: false"})
    refused = stage(checkout, "profile")
    assert refused.returncode == 2 and "set model.precision to float32" in refused.stderr, (
        "the first stage to run the model says so too, though it looks at public records here"
    )
    assert steps_begun(checkout) == -1 and releases(checkout) == {}
