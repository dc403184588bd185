"""What a comparison would run: every run spells all that any changes, and broken grids are refused."""

from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.compare.experiments import Experiment, Waiting, experiments_of, spelled, unlike_first
from pipeline.compare.grid import Grid, arms, budgets, changed_keys, read_grid
from pipeline.presets import leaves
from stages.core.params import read_params

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "presets/compare.yaml"
BASE = read_params(ROOT / "params.yaml")


def first_settings(grid: Grid) -> dict[tuple[str, float | None], dict[str, Any]]:
    """Return the first settings of every method, as if they had been chosen."""
    return {
        (method.name, epsilon): method.choose[0]
        for method in grid.methods
        for epsilon in budgets(grid, method)
    }


def test_the_committed_grid_runs_every_method_at_every_epsilon_from_every_start() -> None:
    grid = read_grid(COMMITTED)
    every = list(arms(BASE, grid, first_settings(grid)))
    told = [(arm.name, arm.epsilon, arm.start) for arm in every]
    assert len(set(told)) == len(told)
    for method in grid.methods:
        own = {(arm.epsilon, arm.start) for arm in every if arm.name == method.name}
        assert own == {(epsilon, start) for epsilon in budgets(grid, method) for start in grid.starts}
    assert {1.0, 3.0, 8.0} == set(grid.epsilons) and len(grid.starts) == 3
    for arm in every:
        private = arm.params["estimator"]["kind"] != "nonprivate"
        assert private == (arm.epsilon is not None)
        assert not private or arm.params["privacy"]["epsilon"] == arm.epsilon
        assert arm.params["seed"]["start"] == arm.start and arm.params["sampling"]["steps"] == 6


def test_a_variant_is_its_method_but_for_what_it_is_about() -> None:
    grid = read_grid(COMMITTED)
    every = list(arms(BASE, grid, first_settings(grid)))
    plain = next(
        arm.params for arm in every if (arm.name, arm.epsilon, arm.start) == (grid.variants.of, 8.0, 0)
    )
    for variant in grid.variants.list:
        changed = next(arm.params for arm in every if (arm.name, arm.start) == (variant.name, 0))
        own = {keys for keys, _ in leaves(variant.params)}
        differ = {
            keys
            for (keys, before), (_, after) in zip(leaves(plain), leaves(changed), strict=True)
            if before != after
        }
        assert differ and differ <= own


def test_every_run_spells_every_changed_parameter_and_nothing_else() -> None:
    grid = read_grid(COMMITTED)
    every = list(arms(BASE, grid, first_settings(grid)))
    found = experiments_of(BASE, every, "code")
    keys = set(changed_keys(BASE, every))
    assert {"tokens.select", "trainable.kind", "privacy.epsilon", "seed.start", "estimator.kind"} <= keys
    assert all(set(each.changes) == keys for each in found)
    names = [each.name for each in found]
    assert len(set(names)) == len(names)
    assert names == [each.name for each in experiments_of(deepcopy(BASE), every, "code")]
    assert not set(names) & {each.name for each in experiments_of(BASE, every, "other code")}
    other = deepcopy(BASE) | {"evaluate": {**BASE["evaluate"], "release": "private"}}
    others = list(arms(other, grid, first_settings(grid)))
    assert not set(names) & {each.name for each in experiments_of(other, others, "code")}
    slower = deepcopy(BASE) | {"speed": {**BASE["speed"], "micro_batch": 1}}
    slow = list(arms(slower, grid, first_settings(grid)))
    assert names == [each.name for each in experiments_of(slower, slow, "code")]


def test_the_quick_grid_is_a_part_of_the_whole() -> None:
    whole = read_grid(COMMITTED)
    quick = whole.quickly()
    assert set(quick.epsilons) < set(whole.epsilons) and set(quick.starts) < set(whole.starts)
    assert [method.name for method in quick.methods] == [method.name for method in whole.methods]
    assert not quick.variants.list and len(quick.methods[0].choose) == 1
    assert quick.params["sampling"]["rate"] == whole.params["sampling"]["rate"]
    assert quick.params["sampling"]["steps"] < whole.params["sampling"]["steps"]


@pytest.mark.parametrize("value", [None, True, 3, 1e-05, 1e-3, 0.008, "sgd", "it's", [[12, 4]], []])
def test_values_are_read_by_dvc_as_they_were_meant(value: Any, tmp_path: Path) -> None:
    """Through what ``--set-param`` uses."""
    from dvc.utils.hydra import apply_overrides

    (tmp_path / "params.yaml").write_text("a: 0\n")
    apply_overrides(tmp_path / "params.yaml", [f"a={spelled(value)}"])
    found = read_params(tmp_path / "params.yaml")["a"]
    assert found == value and type(found) is type(value)


def broken(change: dict[str, Any], tmp_path: Path) -> Path:
    said = YAML(typ="safe", pure=True).load(COMMITTED)
    for key, value in change.items():
        held = said
        *before, last = key.split(".")
        for part in before:
            held = held[int(part)] if part.isdigit() else held[part]
        held[last] = value
    with (tmp_path / "grid.yaml").open("w") as file:
        YAML().dump(said, file)
    return tmp_path / "grid.yaml"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reference": "nobody"}, "there is no method 'nobody' in the comparison; there are"),
        ({"variants.of": "nobody"}, "there is no method 'nobody'"),
        ({"methods.0.choose": []}, "equally many settings"),
        ({"methods.2.name": "DP-SGD"}, "have the same name"),
        ({"variants.starts": [7]}, "variants run from starts from which their method does not"),
        ({"starts": []}, "at least one epsilon and one start"),
        ({"epsilons": [1.0, 3.0, 1]}, "names an epsilon or a start twice"),
        ({"starts": [0, 0, 1]}, "names an epsilon or a start twice"),
        ({"choose_starts": []}, "at least one epsilon and one start"),
        ({"choose_starts": [1, 1]}, "names an epsilon or a start twice"),
        ({"quick.settings": 0}, "quick.settings of the comparison must be at least 1"),
        ({"variants.epsilon": 5.0}, "variants run at epsilon 5, at which no method runs"),
        ({"epsilons": "all"}, "key 'epsilons' must be a list"),
        ({"unknown": 1}, "has unknown keys"),
    ],
)
def test_a_broken_grid_is_refused_in_words(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, KeyError, TypeError), match=reason):
        read_grid(broken(change, tmp_path))


def test_a_missing_grid_and_an_unknown_parameter_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere.yaml does not exist"):
        read_grid(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="is not valid YAML"):
        read_grid(tmp_path / "bad.yaml")
    grid = read_grid(broken({"params.sampling": {"stepz": 3}}, tmp_path))
    with pytest.raises(KeyError, match="the comparison sets 'sampling.stepz'"):
        list(arms(BASE, grid, first_settings(grid)))


def test_runs_that_begin_together_have_different_features() -> None:
    grid = read_grid(COMMITTED)
    made = experiments_of(BASE, list(arms(BASE, grid, first_settings(grid))), "code")
    ordered = unlike_first(made)
    assert sorted(each.name for each in ordered) == sorted(each.name for each in made)
    rules = [str((each.arm.params["calibrate"], each.arm.params["tokens"])) for each in ordered]
    kinds = len(set(rules))
    assert kinds == 5 and len(set(rules[:kinds])) == kinds


def test_a_clone_goes_on_with_runs_that_need_what_it_has_prepared() -> None:
    grid = read_grid(COMMITTED)
    made = experiments_of(BASE, list(arms(BASE, grid, first_settings(grid))), "code")
    waiting = Waiting(made)
    given: list[list[Experiment]] = [[], []]
    while (each := waiting.next(len(given[0]) > len(given[1]))) is not None:
        given[len(given[0]) > len(given[1])].append(each)
    assert sorted(each.name for each in sum(given, [])) == sorted(each.name for each in made)

    def needs(each: Experiment) -> str:
        return str(
            [each.arm.params[section] for section in ("calibrate", "tokens", "trainable", "estimator")]
        )

    kinds = len({needs(each) for each in made})
    begun = sum(1 + sum(needs(a) != needs(b) for a, b in pairwise(own)) for own in given)
    assert needs(given[0][0]) != needs(given[1][0])
    assert kinds <= begun <= kinds + len(given), "a rule is prepared again only to share what is left"
