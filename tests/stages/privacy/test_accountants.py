"""The table of accountants, cell by cell against the libraries, and everything outside it refused."""

import math
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting import dp_event, pld, rdp

from stages.privacy.accountants import (
    RELATIONS,
    TABLE,
    cell_of,
    leaves,
    price,
    table_in_markdown,
    within_known_gap,
)

DELTA, GRID = 1e-5, 1e-4
GAUSSIAN, LAPLACE = dp_event.GaussianDpEvent(2.0), dp_event.LaplaceDpEvent(2.0)
EXAMPLE = {
    "nothing": dp_event.NoOpDpEvent(),
    "Gaussian": GAUSSIAN,
    "Poisson-sampled Gaussian": dp_event.SelfComposedDpEvent(
        dp_event.PoissonSampledDpEvent(0.05, GAUSSIAN), 400
    ),
    "Laplace": LAPLACE,
    "Poisson-sampled Laplace": dp_event.PoissonSampledDpEvent(0.1, LAPLACE),
}


def library(accountant, event, relation):
    """Return what a library says of an event, or None where it refuses."""
    made = {
        "PLD": lambda: pld.PLDAccountant(RELATIONS[relation]),
        "RDP": lambda: rdp.RdpAccountant(neighboring_relation=RELATIONS[relation]),
    }[accountant]()
    return float(made.compose(event).get_epsilon(DELTA)) if made.supports(event) else None


@pytest.mark.parametrize(("shape", "relation"), TABLE)
def test_every_cell_is_decided_by_what_its_library_says_and_its_checks_agree(shape, relation):
    event, cell = EXAMPLE[shape], TABLE[shape, relation]
    assert cell_of([event], relation) == cell
    deciding = price(cell.deciding, [event], DELTA, relation, grid=GRID)
    said = library("PLD", event, relation)
    if cell.deciding == "pure epsilon":
        assert deciding > said > 0.9 * deciding, (
            "at delta 0, whatever the dimension: never below the library's"
        )
    else:
        assert deciding == pytest.approx(said, abs=1e-9)
    for name in cell.checks:
        check = price(name, [event], DELTA, relation, grid=GRID)
        assert within_known_gap(name, check, deciding), (name, check, deciding)
        assert deciding == 0 or not within_known_gap(name, 0.5 * deciding, deciding), (
            "a check must be able to fail"
        )


@pytest.mark.parametrize(("noise", "rate", "dimensions"), [(0.5, 0.3, 1), (1.0, 0.1, 2), (2.0, 0.7, 3)])
def test_a_pure_epsilon_is_the_largest_log_ratio_of_densities_found_by_brute_force(noise, rate, dimensions):
    """Neighbours by one unit of L1 norm 1, sampled at ``rate``; every corner of a grid, both ways round."""
    sampled = dp_event.PoissonSampledDpEvent(rate, dp_event.LaplaceDpEvent(noise))
    places = np.stack(np.meshgrid(*[np.linspace(-3, 3, 25)] * dimensions), axis=-1).reshape(-1, dimensions)
    without = np.exp(-np.abs(places).sum(axis=1) / noise)
    worst = 0.0
    for shift in (np.eye(dimensions)[0], np.full(dimensions, 1 / dimensions)):
        moved = np.exp(-np.abs(places - shift).sum(axis=1) / noise)
        ratio = np.log((1 - rate) * without + rate * moved) - np.log(without)
        worst = max(worst, float(np.abs(ratio).max()))
    epsilon = price("pure epsilon", [sampled], 0.0, "add_or_remove_one", grid=GRID)
    assert worst == pytest.approx(epsilon, rel=1e-9)
    assert epsilon == pytest.approx(math.log(1 + rate * (math.exp(1 / noise) - 1)), rel=1e-12)
    steps = dp_event.SelfComposedDpEvent(sampled, 40)
    assert price("pure epsilon", [steps], 0.0, "add_or_remove_one", grid=GRID) == pytest.approx(40 * epsilon)


def test_pure_epsilons_are_added_to_what_others_spend_and_only_they_have_one_at_delta_zero():
    mixed = [GAUSSIAN, LAPLACE]
    assert cell_of(mixed, "add_or_remove_one").deciding == "PLD"
    assert cell_of(mixed, "add_or_remove_one").checks == ()
    alone = price("PLD", [GAUSSIAN], DELTA, "add_or_remove_one", grid=GRID)
    assert price("PLD", mixed, DELTA, "add_or_remove_one", grid=GRID) == pytest.approx(alone + 0.5)
    assert price("PLD", mixed, 0.0, "add_or_remove_one", grid=GRID) == math.inf
    assert (
        price("pure epsilon", [dp_event.LaplaceDpEvent(0.0)], 0.0, "add_or_remove_one", grid=GRID) == math.inf
    )
    for broken in (dp_event.PoissonSampledDpEvent(1.5, LAPLACE), dp_event.LaplaceDpEvent(math.nan)):
        with pytest.raises(ValueError, match="no accountant is known to be right"):
            price("pure epsilon", [broken], DELTA, "add_or_remove_one", grid=GRID)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("shape", EXAMPLE)
def test_a_cell_is_missing_exactly_where_the_deciding_library_refuses(shape, relation):
    assert ((shape, relation) in TABLE) == (library("PLD", EXAMPLE[shape], relation) is not None)


def test_rdp_is_no_check_where_it_refuses_and_corrected_where_it_ignores_the_relation():
    assert library("RDP", EXAMPLE["Poisson-sampled Gaussian"], "replace_one") is None
    assert TABLE["Poisson-sampled Gaussian", "replace_one"].checks == ()
    blind = library("RDP", GAUSSIAN, "replace_one")
    assert blind == library("RDP", GAUSSIAN, "add_or_remove_one"), (
        "the library has learned the relation: say so"
    )
    halved = price("RDP", [GAUSSIAN], DELTA, "replace_one", grid=GRID)
    exact = price("closed form", [GAUSSIAN], DELTA, "replace_one", grid=GRID)
    assert blind < exact < halved


def test_the_closed_form_is_the_definition():
    """Balle and Wang: delta(epsilon) of a Gaussian, integrated by hand on a fine grid."""
    epsilon, sigma = price("closed form", [GAUSSIAN], DELTA, "add_or_remove_one", grid=GRID), 2.0
    step, delta = 1e-4, 0.0
    for index in range(-200_000, 200_000):
        x = index * step
        density = math.exp(-((x - 1) ** 2) / (2 * sigma**2)) - math.exp(epsilon - x**2 / (2 * sigma**2))
        delta += max(0.0, density) * step / (sigma * math.sqrt(2 * math.pi))
    assert delta == pytest.approx(DELTA, rel=1e-3)


def test_gaussians_on_one_sample_are_one_event():
    """Two releases on one sample, sigma 1 each: 3.49, where two events on two samples would claim 1.83."""
    one = dp_event.GaussianDpEvent(1.0)
    together = dp_event.SelfComposedDpEvent(
        dp_event.PoissonSampledDpEvent(0.01, dp_event.ComposedDpEvent([one, one])), 500
    )
    (leaf,) = leaves([together])
    assert leaf.event.event.noise_multiplier == pytest.approx(2**-0.5)
    assert price("PLD", [together], 1e-5, "add_or_remove_one", grid=GRID) == pytest.approx(3.49, abs=0.02)
    apart = dp_event.SelfComposedDpEvent(dp_event.PoissonSampledDpEvent(0.01, one), 1000)
    assert price("PLD", [apart], 1e-5, "add_or_remove_one", grid=GRID) == pytest.approx(1.83, abs=0.02)


def test_a_composition_is_checked_only_by_those_valid_for_each_part():
    mixed = [GAUSSIAN, EXAMPLE["Poisson-sampled Gaussian"]]
    assert cell_of(mixed, "add_or_remove_one").checks == ("RDP",)
    assert cell_of(mixed, "replace_one").checks == ()
    with pytest.raises(ValueError, match="Laplace event under replace_one"):
        cell_of([GAUSSIAN, LAPLACE], "replace_one")


@pytest.mark.parametrize(
    "event",
    [
        dp_event.RepeatAndSelectDpEvent(GAUSSIAN, 10.0, 1.0),
        dp_event.MixtureOfGaussiansDpEvent(1.0, [0.0, 1.0], [0.5, 0.5]),
        dp_event.PoissonSampledDpEvent(0.1, dp_event.PoissonSampledDpEvent(0.1, GAUSSIAN)),
        dp_event.PoissonSampledDpEvent(0.1, dp_event.NoOpDpEvent()),
        dp_event.PoissonSampledDpEvent(0.1, dp_event.ComposedDpEvent([LAPLACE, LAPLACE])),
        dp_event.SampledWithoutReplacementDpEvent(100, 10, GAUSSIAN),
        dp_accounting.UnsupportedDpEvent(),
    ],
)
def test_an_event_without_a_cell_is_refused_by_name(event):
    with pytest.raises(ValueError, match=r"no accountant is known to be right|RepeatAndSelect"):
        cell_of([event], "add_or_remove_one")


def test_the_documents_show_the_table():
    assert table_in_markdown() in (Path(__file__).parents[3] / "docs/accounting.md").read_text()
