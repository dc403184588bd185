"""The filter's limit holds for any sequence of releases, and it prices nothing that it does not know."""

import math
from itertools import count, permutations

import dp_accounting
import numpy as np
import pytest
from dp_accounting import dp_event, rdp
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from ledgers import ADD_OR_REMOVE, LIMIT, sgd

from stages.privacy.renyi_filter import (
    ORDERS,
    Limit,
    RenyiFilter,
    budget_at,
    cost_of,
    epsilon_at,
    open_filter,
)

GAUSSIANS = st.floats(0.4, 50).map(dp_accounting.GaussianDpEvent)
EVENTS = st.one_of(
    GAUSSIANS,
    st.builds(sgd, st.floats(0.5, 20), st.integers(1, 300), st.floats(1e-4, 1)),
    st.lists(GAUSSIANS, min_size=1, max_size=3).map(dp_accounting.ComposedDpEvent),
    st.just(dp_accounting.NoOpDpEvent()),
)
LIMITS = st.builds(Limit, epsilon=st.floats(0.05, 30), delta=st.floats(1e-9, 1e-2))


def admitted(limit: Limit, events: list, broken: float = 1.0) -> list:
    """Return the events that a filter admits one after the other; ``broken`` weighs their cost wrongly."""
    spending = [event for event in events if not isinstance(event, dp_accounting.NoOpDpEvent)]
    if not spending:
        return events
    found = open_filter(limit, spending[0], ADD_OR_REMOVE)
    total, kept = 0.0, []
    for event in events:
        cost = cost_of(event, found.order, ADD_OR_REMOVE)
        if found.admits(total + broken * cost):
            total += broken * cost
            kept.append(event)
    return kept


def composed_epsilon(events: list, delta: float) -> float:
    """Return the epsilon of all events composed by the accountant itself, at the best of all orders."""
    accountant = rdp.RdpAccountant(ORDERS)
    for event in events:
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


@settings(deadline=None, max_examples=50)
@given(LIMITS, st.lists(EVENTS, max_size=12))
def test_whatever_is_admitted_composes_to_no_more_than_the_limit(limit: Limit, events: list) -> None:
    assert composed_epsilon(admitted(limit, events), limit.delta) <= limit.epsilon


@pytest.mark.parametrize("broken", [0.8, 0.0])
def test_control_a_filter_that_undercounts_is_found_out(broken: float) -> None:
    limit = Limit(epsilon=2.0, delta=1e-5)

    def exceeds(noise: float) -> bool:
        events = [dp_accounting.GaussianDpEvent(noise)] * 40
        return composed_epsilon(admitted(limit, events, broken), limit.delta) > limit.epsilon

    find(st.floats(2, 50), exceeds, settings=settings(deadline=None, max_examples=200, database=None))
    with pytest.raises(NoSuchExample):
        broken = 1.0
        find(st.floats(2, 50), exceeds, settings=settings(deadline=None, max_examples=50, database=None))


@settings(deadline=None, max_examples=20)
@given(st.lists(EVENTS, min_size=2, max_size=4))
def test_the_order_of_releases_changes_no_cost(events: list) -> None:
    costs = [[cost_of(event, 8.0, ADD_OR_REMOVE) for event in order] for order in permutations(events)]
    assert len({math.fsum(order) for order in costs}) == 1


def adaptive_divergence(order: float, first: float, second: "callable") -> float:
    """Return the Renyi divergence at ``order`` of two Gaussians, the second's noise chosen by the first.

    Both have sensitivity 1. Given the first output y, the second contributes exactly order / (2 noise^2), so
    one integral over y is the whole divergence; ``second(y)`` is None where nothing more is released.
    """
    y = np.linspace(-40 * first, 40 * first + 2 * order, 400_001)
    own = (order * -((y - 1) ** 2) - (1 - order) * y**2) / (2 * first**2)
    noise = [second(value) for value in (y[0], y[-1])]
    further = np.where(
        y <= 0.5, *((0.0 if sigma is None else order / (2 * sigma**2)) * (order - 1) for sigma in noise)
    )
    exponents = own + further - math.log(first * math.sqrt(2 * math.pi))
    top = exponents.max()
    integral = np.exp(exponents - top).sum() * (y[1] - y[0])
    return (top + math.log(integral)) / (order - 1)


def test_choosing_the_next_release_by_what_the_last_one_showed_stays_within_the_budget() -> None:
    """Exactly, by an integral: one branch spends all that remains, the other stops."""
    found = open_filter(Limit(epsilon=3.0, delta=1e-5), dp_accounting.GaussianDpEvent(2.0), ADD_OR_REMOVE)
    remaining = found.budget - cost_of(dp_accounting.GaussianDpEvent(2.0), found.order, ADD_OR_REMOVE)
    least = math.sqrt(found.order / (2 * remaining)) * (1 + 1e-9)
    for branches in ((None, least), (least, None), (least, least), (3 * least, least)):
        spent = adaptive_divergence(found.order, 2.0, lambda y, b=branches: b[int(y > 0.5)])
        assert spent <= found.budget * (1 + 1e-6)
    assert spent > 0.9 * found.budget, "the bound is met, so that the integral is not of something else"


def test_control_a_limit_on_the_average_branch_is_exceeded() -> None:
    """What is no filter: half of the outcomes spend twice what remains, the others nothing."""
    found = open_filter(Limit(epsilon=3.0, delta=1e-5), dp_accounting.GaussianDpEvent(2.0), ADD_OR_REMOVE)
    remaining = found.budget - cost_of(dp_accounting.GaussianDpEvent(2.0), found.order, ADD_OR_REMOVE)
    noise = math.sqrt(found.order / (2 * 2 * remaining))
    assert adaptive_divergence(found.order, 2.0, lambda y: noise if y > 0.5 else None) > 1.05 * found.budget


@settings(deadline=None, max_examples=50)
@given(LIMITS, st.sampled_from(ORDERS))
def test_the_budget_is_the_largest_within_the_limit(limit: Limit, order: float) -> None:
    budget = budget_at(order, limit)
    if budget > 0:
        assert epsilon_at(order, budget, limit.delta) <= limit.epsilon
        assert epsilon_at(order, budget * (1 + 1e-6) + 1e-6, limit.delta) > limit.epsilon
    else:
        assert epsilon_at(order, 1e-3, limit.delta) > limit.epsilon


def test_the_order_is_the_one_at_which_most_copies_of_the_first_release_fit() -> None:
    for event in (sgd(), sgd(0.8, 1000, 0.01), dp_accounting.GaussianDpEvent(5.0)):
        found = open_filter(LIMIT, event, ADD_OR_REMOVE)
        copies = {
            order: next(
                number - 1
                for number in count(1)
                if epsilon_at(order, number * cost_of(event, order, ADD_OR_REMOVE), LIMIT.delta)
                > LIMIT.epsilon
            )
            for order in ORDERS
            if order <= 64
        }
        assert copies[found.order] == max(copies.values())


def test_known_values() -> None:
    """Closed forms: a Gaussian's RDP is order / (2 sigma^2), and without sampling a step is a Gaussian."""
    assert cost_of(dp_accounting.GaussianDpEvent(2.0), 6.0, ADD_OR_REMOVE) == pytest.approx(6 / 8)
    assert cost_of(sgd(2.0, 10, rate=1.0), 6.0, ADD_OR_REMOVE) == pytest.approx(10 * 6 / 8)
    assert cost_of(sgd(2.0, 10, rate=0.0), 6.0, ADD_OR_REMOVE) == 0
    sampled = sum(
        math.comb(3, k) * 0.1**k * 0.9 ** (3 - k) * math.exp((k * k - k) / (2 * 1.3**2)) for k in range(4)
    )
    assert cost_of(sgd(1.3, 7, rate=0.1), 3.0, ADD_OR_REMOVE) == pytest.approx(7 * math.log(sampled) / 2)


@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.NonPrivateDpEvent(),
        dp_accounting.SelfComposedDpEvent(dp_accounting.NonPrivateDpEvent(), 3),
        dp_accounting.ComposedDpEvent([sgd(), dp_accounting.NonPrivateDpEvent()]),
        dp_accounting.GaussianDpEvent(0.0),
        dp_accounting.GaussianDpEvent(1e-200),
    ],
    ids=str,
)
def test_an_event_without_privacy_costs_infinity(event: dp_accounting.DpEvent) -> None:
    assert cost_of(event, 4.0, ADD_OR_REMOVE) == math.inf


@pytest.mark.parametrize("order", [2.0, 8.0, 1024.0])
@pytest.mark.parametrize("noise", [0.05, 1.0, 30.0])
def test_laplace_noise_costs_no_less_than_its_divergence_and_no_more_than_its_epsilon(
    noise: float, order: float
) -> None:
    """The divergence of one-dimensional Laplace noise in closed form (Mironov 2017, Proposition 6)."""
    cost = cost_of(dp_accounting.LaplaceDpEvent(noise), order, ADD_OR_REMOVE)
    a = math.log(order / (2 * order - 1)) + (order - 1) / noise
    b = math.log((order - 1) / (2 * order - 1)) - order / noise
    exact = (max(a, b) + math.log1p(math.exp(-abs(a - b)))) / (order - 1)
    assert exact <= cost * (1 + 1e-9) and cost <= 1 / noise * (1 + 1e-9)
    assert cost <= order / (2 * noise**2) * (1 + 1e-9), "Bun and Steinke 2016, Proposition 3.3"


def test_the_cost_of_laplace_noise_adds_up_with_that_of_gaussians() -> None:
    laplace = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.LaplaceDpEvent(1.0))
    twice = dp_accounting.ComposedDpEvent([dp_accounting.SelfComposedDpEvent(laplace, 2), sgd()])
    alone = [cost_of(event, 4.0, ADD_OR_REMOVE) for event in (laplace, sgd())]
    assert cost_of(twice, 4.0, ADD_OR_REMOVE) == pytest.approx(2 * alone[0] + alone[1])
    assert cost_of(dp_accounting.LaplaceDpEvent(0.0), 4.0, ADD_OR_REMOVE) == math.inf


@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.ComposedDpEvent([dp_accounting.ZCDpEvent(0.1)]),
        dp_event.RepeatAndSelectDpEvent(dp_accounting.GaussianDpEvent(1.0), 10, 0.0),
        dp_accounting.SampledWithoutReplacementDpEvent(10, 2, dp_accounting.GaussianDpEvent(1.0)),
        dp_accounting.UnsupportedDpEvent(),
        dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.NoOpDpEvent()),
        dp_accounting.PoissonSampledDpEvent(1.5, dp_accounting.GaussianDpEvent(1.0)),
        dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(1.0), 0),
        dp_accounting.GaussianDpEvent(1e200),
        dp_accounting.GaussianDpEvent(math.nan),
    ],
    ids=str,
)
def test_what_cannot_be_priced_is_refused(event: dp_accounting.DpEvent) -> None:
    with pytest.raises(ValueError, match="the privacy filter (prices no|cannot price)"):
        cost_of(event, 4.0, ADD_OR_REMOVE)


def test_replace_one_is_refused_by_name_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="under replace_one.*needs privacy.relation add_or_remove_one"):
        cost_of(dp_accounting.GaussianDpEvent(1.0), 4.0, "replace_one")


@pytest.mark.parametrize("event", [dp_accounting.NoOpDpEvent(), sgd(1.0, 10, rate=0.0)], ids=str)
def test_a_first_release_that_spends_nothing_opens_no_filter(event: dp_accounting.DpEvent) -> None:
    with pytest.raises(ValueError, match="must spend something"):
        open_filter(LIMIT, event, ADD_OR_REMOVE)


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0, 1e-5), (-1, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5), (1, 0), (1, 1), (1, math.nan)],
)
def test_a_limit_that_limits_nothing_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match=r"ledger\.limit\."):
        Limit(epsilon=epsilon, delta=delta)


def test_a_filter_with_another_budget_than_its_limits_is_refused() -> None:
    good = open_filter(LIMIT, sgd(), ADD_OR_REMOVE)
    for wrong in ({"budget": good.budget * 1.001}, {"epsilon": 13.0}, {"order": 4.0}, {"delta": 1e-4}):
        fields = {"epsilon": 12.0, "delta": 1e-5, "order": good.order, "budget": good.budget}
        with pytest.raises(ValueError, match="the budget of epsilon"):
            RenyiFilter(**fields | wrong)
    with pytest.raises(ValueError, match="one of the orders"):
        RenyiFilter(epsilon=12.0, delta=1e-5, order=2.5, budget=5.0)
