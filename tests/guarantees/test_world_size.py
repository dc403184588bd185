"""One process or several, base whole or sharded: the same units, the same noise, the same sums."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world

from stages.core.launch import launch
from stages.core.ranks import ALONE

TESTS = Path(__file__).resolve().parents[1]
AGREE = 1e-6


def together(processes: int, parts: str, model: Path, folder: Path) -> dict[str, Any]:
    """Return what ``processes`` real processes found (tests/world.py)."""
    results = folder / f"{processes}.json"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent}")
        environment.setenv("WORLD_MODEL", str(model))
        environment.setenv("WORLD_RESULTS", str(results))
        environment.setenv("WORLD_PARTS", parts)
        assert launch("world", processes) == 0
    return json.loads(results.read_text())


@pytest.fixture(scope="module")
def worlds(tiny_llava, tmp_path_factory) -> dict[int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("worlds")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WORLD_MODEL", str(tiny_llava))
        alone = {"whole": world.whole(ALONE), "beside": world.beside(ALONE)}
    return {1: alone, 2: together(2, "whole,sharded,beside,faulty", tiny_llava, folder)}


@pytest.fixture(scope="module")
def four(tiny_llava, tmp_path_factory) -> dict[str, Any]:
    return together(4, "whole,sharded", tiny_llava, tmp_path_factory.mktemp("four"))


def distance(one: list[float], other: list[float]) -> float:
    """Return how far two vectors are apart, relative to the first."""
    return float(np.linalg.norm(np.subtract(one, other)) / np.linalg.norm(one))


def flat(step: list[list[int]]) -> list[int]:
    return sorted(unit for share in step for unit in share)


def require_agreement(alone: dict[str, Any], several: dict[str, Any]) -> None:
    for name in ("total", "total of one unit", "weights", "weights of an accumulated support"):
        assert distance(alone[name], several[name]) < AGREE, name


def check(alone: dict[str, Any], several: dict[str, Any]) -> None:
    assert [flat(step) for step in several["sampled"]] == [flat(step) for step in alone["sampled"]]
    assert several["noise"] == alone["noise"], "bit for bit"
    require_agreement(alone, several)
    assert not any(several["total of none"]) and len(several["total of none"]) == len(alone["total"])


def test_two_processes_sample_sum_and_train_as_one_does(worlds):
    check(worlds[1]["whole"], worlds[2]["whole"])


@pytest.mark.slow
def test_four_processes_sample_sum_and_train_as_one_does(worlds, four):
    check(worlds[1]["whole"], four["whole"])


def test_every_unit_is_looked_at_by_one_process_and_no_share_is_always_empty(worlds):
    steps = worlds[2]["whole"]["sampled"]
    for step in steps:
        assert len(flat(step)) == len(set(flat(step)))
    assert all(any(step[rank] for step in steps) for rank in range(2))


def check_sharded(alone: dict[str, Any], several: dict[str, Any]) -> None:
    assert several["cut weights"] > 0
    require_agreement(alone, several)
    assert distance(alone["total"], several["total recomputed"]) < AGREE
    assert distance(alone["total"], several["total within memory"]) < AGREE


def test_a_sharded_base_gives_the_unsharded_sums_recomputed_activations_too(worlds):
    check_sharded(worlds[1]["whole"], worlds[2]["sharded"])


@pytest.mark.slow
def test_a_base_in_four_shards_gives_the_unsharded_sums(worlds, four):
    check_sharded(worlds[1]["whole"], four["sharded"])


def test_a_side_network_beside_a_sharded_base_gives_the_unsharded_sums(worlds):
    alone, two = worlds[1]["beside"], worlds[2]["beside"]
    assert two["cut weights"] > 0
    for name in ("total", "total sharded", "total of one unit sharded", "total recomputed"):
        assert distance(alone[name], two[name]) < AGREE, name
    assert distance(alone["total"], alone["total sharded"]) < AGREE


def test_processes_that_work_together_wrongly_are_noticed(worlds):
    """Negative controls: units counted twice, noise added twice, a sample for each process."""
    alone, faulty = worlds[1]["whole"], worlds[2]["faulty"]
    assert distance(alone["total"], faulty["every process takes all"]) > 0.5
    assert distance(alone["noise"], faulty["every process adds noise"]) > 0.1
    steps = faulty["every process samples for itself"]
    assert [flat(step) for step in steps] != [flat(step) for step in alone["sampled"]]
    assert any(len(flat(step)) != len(set(flat(step))) for step in steps), "some unit is looked at twice"
