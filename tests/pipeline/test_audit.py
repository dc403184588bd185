"""The audit recomputes everything and notices every changed scalar."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from checkout import run
from ruamel.yaml import YAML

from pipeline.audit import audit
from stages.privacy.audit import CHARGES, PLAN, STATEMENT, TRACE


def scalars(value, path=()):
    """Yield the path of every scalar in a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from scalars(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from scalars(item, (*path, index))
    else:
        yield path


def other(scalar):
    """Return a plausible lie of the same type."""
    if isinstance(scalar, bool):
        return not scalar
    if isinstance(scalar, int):
        return scalar + 1
    if isinstance(scalar, float):
        return scalar * 0.5
    return 0.25 if scalar is None else scalar + "x"


def changed(document, path):
    copy = json.loads(json.dumps(document))
    parent = copy
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = other(parent[path[-1]])
    return copy


@pytest.mark.parametrize("file", [PLAN, TRACE, CHARGES, STATEMENT])
def test_every_changed_scalar_is_noticed_and_its_file_named(ran_checkout, file):
    document = json.loads((ran_checkout / file).read_text())
    paths = list(scalars(document))
    assert len(paths) > 10
    for path in paths:
        (ran_checkout / file).write_text(json.dumps(changed(document, path)))
        verdict = audit(ran_checkout)
        assert verdict["verdict"] == "fail", path
        assert file in {finding["file"] for finding in verdict["findings"]}, path


@pytest.mark.parametrize("file", [PLAN, TRACE, CHARGES, STATEMENT])
def test_a_changed_scalar_is_noticed_even_where_dvc_lock_is_rewritten_to_match(ran_checkout, file):
    """Negative control of the rebuild: the DVC record alone is not what catches the lie."""
    import hashlib

    document = json.loads((ran_checkout / file).read_text())
    lock = (ran_checkout / "dvc.lock").read_text()
    before = hashlib.md5((ran_checkout / file).read_bytes()).hexdigest()
    missed = []
    for path in scalars(document):
        (ran_checkout / file).write_text(json.dumps(changed(document, path)))
        after = hashlib.md5((ran_checkout / file).read_bytes()).hexdigest()
        (ran_checkout / "dvc.lock").write_text(lock.replace(before, after))
        if audit(ran_checkout)["verdict"] == "pass":
            missed.append(path)
    assert not missed


@pytest.mark.parametrize(
    "key",
    [
        *(f"sampling.{name}" for name in ("rate", "steps", "expected_batch")),
        *(f"estimator.{name}" for name in ("kind", "clip", "clip_rule", "clip_groups", "rows_per_unit")),
        *(f"privacy.{name}" for name in ("epsilon", "delta", "relation")),
        *(f"population.{name}" for name in ("name", "max_units", "public", "unit")),
    ],
)
def test_a_plan_that_is_not_the_public_configuration_is_noticed(ran_checkout, key):
    yaml = YAML()
    lock = yaml.load(ran_checkout / "dvc.lock")
    section, name = key.split(".")
    configured = lock["stages"]["plan"]["params"]["params.yaml"][section]
    configured[name] = other(configured[name])
    yaml.dump(lock, ran_checkout / "dvc.lock")
    found = audit(ran_checkout)["findings"]
    assert [finding["file"] for finding in found] == [PLAN], found


def test_an_epsilon_that_is_no_number_is_noticed(ran_checkout):
    plan = json.loads((ran_checkout / PLAN).read_text())
    (ran_checkout / PLAN).write_text(json.dumps({**plan, "epsilon": float("nan")}))
    problems = [finding["problem"] for finding in audit(ran_checkout)["findings"]]
    assert any("promises epsilon nan" in problem for problem in problems)


def dualpriv(checkout: Path, *arguments: str):
    return run(checkout, sys.executable, "-m", "pipeline.cli", *arguments, check=False)


def test_a_fresh_clone_without_cache_data_or_model_passes_and_says_so(ran_checkout, tmp_path):
    clone = tmp_path / "clone"
    for file in (
        "data/plan.json",
        "data/finetune",
        "data/account",
        "data/profile",
        "data/calibrate",
        "dvc.lock",
        "pipeline",
        "stages",
    ):
        source = ran_checkout / file
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, clone / file)
    done = dualpriv(clone, "audit", "--json")
    verdict = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert {"epsilon", "delta", "population", "unit", "relation", "accountant", "verdict", "releases"} <= set(
        verdict
    )
    assert (verdict["verdict"], verdict["weights"]) == ("pass", "not checked")
    assert 0 < verdict["epsilon"] <= 8.0
    required = dualpriv(clone, "audit", "--require-weights")
    assert required.returncode == 1 and "models/adapter" in required.stderr


def test_present_weights_are_checked_and_swapped_ones_are_noticed(ran_checkout):
    assert audit(ran_checkout)["weights"] == "checked"
    weights = ran_checkout / "models/adapter/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    done = dualpriv(ran_checkout, "audit")
    assert done.returncode == 1 and "models/adapter/adapter_model.safetensors" in done.stderr


def test_missing_evidence_is_one_sentence_and_exit_2(ran_checkout):
    (ran_checkout / TRACE).unlink()
    done = dualpriv(ran_checkout, "audit")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and TRACE in done.stderr
