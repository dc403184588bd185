"""Counts are counted by unit and declared kind, and an interval covers what sampling and noise did."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import PRUNED, rows
from stages.evaluation.accuracy import accuracy_by_kind, wilson_interval
from stages.evaluation.noised_accuracy import (
    NoisedAccuracy,
    answered_alone,
    counted_kinds,
    counts_by_unit,
    noised_accuracy_by_kind,
    noised_interval,
)
from stages.evaluation.settings import NoisedCounts
from stages.vlm.encoder import encode_set
from stages.vlm.family import load

DRAWS = 4000


@pytest.mark.parametrize(("correct", "count"), [(0, 1), (0, 1012), (1, 1), (37, 100), (999, 1000)])
def test_without_noise_the_interval_is_wilsons(correct: int, count: int) -> None:
    assert noised_interval(correct, count, 0.0) == pytest.approx(wilson_interval(correct, count), abs=1e-12)


def covered(chance: float, rows: int, deviation: float, assumed: float) -> float:
    """Return how often the interval, made for noise of ``assumed``, holds the true chance."""
    dice = np.random.default_rng([int(1000 * chance), rows, int(deviation)])
    correct = dice.binomial(rows, chance, DRAWS) + deviation * dice.standard_normal(DRAWS)
    counted = rows + deviation * dice.standard_normal(DRAWS)
    bounds = [noised_interval(*found, assumed) for found in zip(correct, counted, strict=True)]
    return sum(low <= chance <= high for low, high in bounds) / DRAWS


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("count", "deviation"), [(200, 5.0), (1000, 30.0), (3000, 15.0), (60, 30.0)])
def test_nineteen_in_twenty_intervals_hold_the_truth(chance: float, count: int, deviation: float) -> None:
    """4,000 draws: a coverage of 93.5 % would be noticed."""
    assert covered(chance, count, deviation, assumed=deviation) >= 0.94


def test_an_interval_that_forgets_the_noise_would_be_noticed() -> None:
    assert covered(0.9, 1000, 30.0, assumed=0.0) < 0.6


@pytest.mark.parametrize(
    ("correct", "count"), [(3.0, -2.0), (0.0, 0.0), (-4.0, 5.0), (60.0, 20.0), (1e9, 1e-9)]
)
def test_counts_that_say_nothing_give_no_bounds(correct: float, count: float) -> None:
    found = NoisedAccuracy(correct, count, 10.0).to_json()
    assert (found["low"], found["high"]) == (0.0, 1.0)
    assert found["accuracy"] is None or 0 <= found["accuracy"] <= 1


def test_the_whole_is_the_sum_of_kinds_with_the_noise_of_all_of_them() -> None:
    noised = torch.tensor([10.0, 20.0, 5.0, 10.0, 7.0, 15.0])
    before, after = noised_accuracy_by_kind(noised, ("digit", "other"), 3.0)
    assert before["digit"] == NoisedAccuracy(5.0, 10.0, 3.0) and after["other"] == NoisedAccuracy(
        15.0, 20.0, 3.0
    )
    assert after["all"] == NoisedAccuracy(22.0, 30.0, 3.0 * 2**0.5)
    (alone,) = noised_accuracy_by_kind(torch.tensor([30.0, 22.0]), counted_kinds([]), 3.0)
    assert alone == {"all": NoisedAccuracy(22.0, 30.0, 3.0)}


def test_counts_of_all_units_are_those_of_exact_accuracy(tiny_llava: Path) -> None:
    """And a kind that is not declared is counted without its name."""
    loaded = load(tiny_llava)
    encoded = encode_set(loaded, rows(units=9, rows_per_unit=3), PRUNED)
    units, kinds = encoded.rows_by_unit(), counted_kinds(["digit", "never asked"])
    answered = answered_alone("test", loaded.model, loaded.family, encoded, units, micro_batch=2)
    counts_UK = counts_by_unit(encoded, units, [answered], kinds)
    assert kinds == ("digit", "never asked", "other") and counts_UK.shape == (9, 6)
    exact = accuracy_by_kind("test", loaded.model, loaded.family, encoded, micro_batch=5)
    rows_K, correct_K = counts_UK.sum(dim=0).reshape(2, 3).tolist()
    assert rows_K == [exact["digit"].rows, 0, exact["all"].rows - exact["digit"].rows]
    assert correct_K == [exact["digit"].correct, 0, exact["all"].correct - exact["digit"].correct]


def test_a_units_answers_do_not_hang_on_its_neighbours(tiny_llava: Path) -> None:
    loaded = load(tiny_llava)
    given = rows(units=4, rows_per_unit=3)
    encoded, fewer = (encode_set(loaded, part, PRUNED) for part in (given, given[:6]))
    arguments = (loaded.model, loaded.family)
    whole = answered_alone("test", *arguments, encoded, encoded.rows_by_unit(), 100)
    assert whole[:2] == answered_alone("test", *arguments, fewer, fewer.rows_by_unit(), 100)


@pytest.mark.parametrize("kinds", [("digit", "digit"), ("all",), ("digit", "other")])
def test_a_kind_that_is_named_twice_or_means_something_else_is_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="names each kind once, and not 'all' or 'other'"):
        NoisedCounts(rate=1.0, rows_per_unit=1, clip=1.0, noise_multiplier=1.0, kinds=kinds)
