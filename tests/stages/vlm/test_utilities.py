"""What a unit says of pruning rules is its own, bounded, and the mean over its rows."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import ALL, PRUNED, rows
from stages.records.row import Message, Row, rows_by_unit
from stages.vlm.family import load
from stages.vlm.fidelity import Sample
from stages.vlm.loaded import Loaded
from stages.vlm.utilities import Utility, budget_utility, layer_utility, unit_utilities

LAYERS = (0, 1, 2)
RULES = [replace(PRUNED, layer=layer) for layer in LAYERS]
BOUND = 2.0
BY_LAYER, BY_BUDGET = layer_utility(RULES, BOUND), budget_utility(ALL, RULES)


@pytest.fixture(scope="module")
def loaded(tiny_llava: Path) -> Loaded:
    return load(tiny_llava)


def said(
    loaded: Loaded, given: list[Row], utility: Utility, size: int, told: list[int] | None = None
) -> Tensor:
    told = [] if told is None else told
    units = rows_by_unit(given)
    return unit_utilities(loaded, given, units, LAYERS, utility, size, 100, told.append)


@pytest.mark.parametrize(("utility", "size"), [(BY_LAYER, 3), (BY_BUDGET, 4)], ids=["layers", "budgets"])
def test_what_a_unit_says_does_not_hang_on_its_neighbours_bit_for_bit(
    loaded: Loaded, utility: Utility, size: int
) -> None:
    given = rows(4, rows_per_unit=3)
    other = [replace(row, images=rows(9)[8].images) if row.unit == "unit 3" else row for row in given]
    whole = said(loaded, given, utility, size)
    for part, kept in ((given[:6], 2), (other, 3)):
        assert torch.equal(whole[:kept], said(loaded, part, utility, size)[:kept])


def test_rows_that_go_through_together_do_round_otherwise(loaded: Loaded) -> None:
    """Negative control: the promise above is no matter of course."""
    given = rows(12, rows_per_unit=3)
    longer = replace(
        given[-1], messages=(Message("user", "<image>" + "odd or even ? " * 9), given[-1].messages[1])
    )
    together = [
        Sample.of(loaded, part, LAYERS, 100).answers(RULES[1]).log_likelihood_R
        for part in (given, [*given[:-1], longer])
    ]
    assert torch.allclose(together[0][:-1], together[1][:-1], atol=1e-4)
    assert not torch.equal(together[0][:-1], together[1][:-1])


def test_utilities_are_means_over_the_units_rows(loaded: Loaded) -> None:
    given = rows(2, rows_per_unit=3)
    layers, budgets = said(loaded, given, BY_LAYER, 3), said(loaded, given, BY_BUDGET, 4)
    for unit in range(2):
        alone = [Sample.of(loaded, [row], LAYERS, 100) for row in given[3 * unit : 3 * unit + 3]]
        for index, rule in enumerate(RULES):
            found = [float(sample.answers(rule).log_likelihood_R) for sample in alone]
            expected = sum(max(-BOUND, value) for value in found) / 3
            assert float(layers[unit, index]) == pytest.approx(expected, abs=1e-4)
            kept = sum(float(sample.answers(rule).is_right_R) for sample in alone) / 3
            assert float(budgets[unit, 0] - budgets[unit, 1 + index]) == pytest.approx(kept)


def test_utilities_lie_in_their_public_range(loaded: Loaded) -> None:
    given = rows(6, rows_per_unit=3)
    layers = said(loaded, given, BY_LAYER, 3)
    assert float(layers.min()) >= -BOUND and float(layers.max()) <= 0
    assert float(said(loaded, given, layer_utility(RULES, 1e9), 3).min()) < -BOUND, "the bound does bind"
    budgets = said(loaded, given, BY_BUDGET, 4)
    assert 0 <= float(budgets[:, 0].min()) and float(budgets.abs().max()) <= 1


def test_a_unit_without_images_loses_nothing_by_pruning(loaded: Loaded) -> None:
    text = [
        replace(row, images=(), messages=(Message("user", "odd or even ?"), row.messages[1]))
        for row in rows(2)
    ]
    assert said(loaded, text, BY_BUDGET, 4)[:, 1:].tolist() == [[0.0] * 3] * 2
    layers = said(loaded, text, BY_LAYER, 3)
    assert torch.equal(layers, layers[:, :1].expand(-1, 3))


@pytest.mark.parametrize("units", [1, 7, 40])
def test_progress_tells_twenty_parts_whatever_the_number_of_units(loaded: Loaded, units: int) -> None:
    told: list[int] = []
    said(loaded, rows(units), lambda sample: torch.zeros(1), 1, told)
    assert told == list(range(1, 21))
