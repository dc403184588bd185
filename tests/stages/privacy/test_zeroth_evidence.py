"""Evidence of zeroth-order runs: honest passes are found so, and no lie about a step stays unnoticed."""

import json
from dataclasses import replace

import pytest
from honest_evidence import Run, files_of, locked
from stored_evidence import Files, lied, read, replaced, scalars

from stages.core.canonical import canonical_json
from stages.core.entry import quiet_accountants
from stages.privacy.audit import audit_of
from stages.privacy.directions import Directions
from stages.privacy.evidence import PLAN, TRACE
from stages.privacy.statement import OF_SLOPES

quiet_accountants()
GAUSSIAN = Run(directions=Directions(count=3, perturbation=1e-3, seed=7))
LAPLACE = replace(GAUSSIAN, distribution="laplace", noise=2.5)
RUNS = {"gaussian": GAUSSIAN, "laplace": LAPLACE}


def errors(files: Files) -> list[str]:
    return [found.problem for found in audit_of(read(files)).findings if found.severity == "error"]


@pytest.mark.parametrize("noise", RUNS)
def test_an_honest_pass_is_found_so_and_its_statement_names_what_slopes_add(noise: str) -> None:
    files = files_of(RUNS[noise])
    assert errors(files) == []
    assert OF_SLOPES in json.loads(files["data/account/statement.json"])["limits"]


@pytest.mark.parametrize("file", [TRACE, pytest.param(PLAN, marks=pytest.mark.slow)])
@pytest.mark.parametrize("noise", RUNS)
def test_every_changed_scalar_is_noticed(noise: str, file: str) -> None:
    files, missed = files_of(RUNS[noise]), []
    value = json.loads(files[file])
    paths = [path for path in scalars(value) if not (path[0] == "steps" and path[1:2] and path[1] > 1)]
    for path in paths:
        if not errors(replaced(files, file, canonical_json(lied(value, path)))):
            missed.append(path)
    assert len(paths) > 10 and not missed
    assert any("directions" in path for path in paths)


def test_directions_and_noise_that_are_not_the_configured_ones_are_noticed() -> None:
    files = files_of(GAUSSIAN)
    for other in (
        replace(GAUSSIAN, directions=Directions(count=3, perturbation=1e-3, seed=8)),
        replace(GAUSSIAN, directions=Directions(count=3, perturbation=1e-2, seed=7)),
        LAPLACE,
    ):
        lock = locked(files, GAUSSIAN.plan())["dvc.lock"]
        assert any("directions" in problem for problem in errors({**files_of(other), "dvc.lock": lock}))


def test_the_directions_of_a_lock_with_one_seed_are_checked_against_that() -> None:
    files = files_of(GAUSSIAN)
    for seed, honest in ((7, True), (3, False)):
        lock = json.loads(files["dvc.lock"])
        lock["stages"]["plan"]["params"]["params.yaml"]["seed"] = {"public": seed}
        problems = errors({**files, "dvc.lock": canonical_json(lock)})
        assert any("directions" in problem for problem in problems) is not honest
