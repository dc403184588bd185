"""The one-run bound is the paper's, read slowly, and holds on a mechanism whose epsilon is known."""

import bisect
import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from stages.privacy.one_run_bound import Guesses, ceiling, epsilon_lower_bound, guess, p_value


def slow_p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Sum binomial terms, one after the other, as the theorem is written."""
    q, r, v = 1 / (1 + math.exp(-epsilon)), guesses.made, guesses.right
    terms = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]

    def at_least(right: int) -> float:
        return math.fsum(terms[max(right, 0) :])

    beta = at_least(v)
    alpha = max((at_least(v - i) - beta) / i for i in range(1, guesses.canaries + 1))
    return min(1.0, beta + 2 * guesses.canaries * delta * alpha)


def slow_bound(guesses: Guesses, delta: float) -> float:
    """Walk up from zero while the guesses contradict epsilon."""
    epsilon = 0.0
    while slow_p_value(guesses, epsilon, delta) < 0.05:
        epsilon += 0.02
    return epsilon


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize(("made", "right"), [(1, 1), (10, 9), (30, 30), (40, 31), (40, 20), (60, 3), (5, 0)])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0, 4.0])
def test_the_p_value_is_what_slow_sums_give(made: int, right: int, delta: float, epsilon: float) -> None:
    guesses = Guesses(64, made, right)
    slow = slow_p_value(guesses, epsilon, delta)
    assert p_value(guesses, epsilon, delta) == pytest.approx(slow, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize(("made", "right"), [(6, 6), (20, 19), (40, 40), (50, 40), (60, 33)])
def test_the_bound_is_the_first_epsilon_that_is_not_contradicted(made: int, right: int, delta: float) -> None:
    guesses = Guesses(60, made, right)
    bound, slow = epsilon_lower_bound(guesses, delta), slow_bound(guesses, delta)
    assert bound <= slow <= bound + 0.0201 or bound == slow == 0


@pytest.mark.parametrize(("made", "most"), [(50, 2.8), (100, 3.5), (200, 4.2), (500, 5.1), (1000, 5.8)])
def test_perfect_guesses_prove_no_more_than_the_ceiling(made: int, most: float) -> None:
    assert ceiling(made, made, 0.0) == pytest.approx(most, abs=0.05)
    assert ceiling(made, 2000, 1e-5) < ceiling(made, made, 0.0), "delta only weakens it"


def test_guesses_by_chance_show_nothing() -> None:
    assert epsilon_lower_bound(Guesses(1000, 200, 100), 1e-5) == 0
    assert epsilon_lower_bound(Guesses(1000, 0, 0), 1e-5) == 0
    assert epsilon_lower_bound(Guesses(1000, 200, 20), 1e-5) == 0
    assert epsilon_lower_bound(Guesses(1000, 200, 160), 1e-5) > 1, "negative control"


@pytest.mark.parametrize(("made", "epsilon"), [(100, 0.5), (100, 2.0), (1000, 1.0), (1000, 4.0)])
def test_on_randomized_response_it_exceeds_the_truth_once_in_twenty_at_most(
    made: int, epsilon: float
) -> None:
    """Randomized response answers right with chance q: the theorem's worst case, epsilon exactly."""
    q, q_of_more = (1 / (1 + math.exp(-value)) for value in (epsilon, epsilon + 0.5))
    bound_of = lambda v: epsilon_lower_bound(Guesses(made, made, v), 0.0)  # noqa: E731
    right = bisect.bisect_right(range(made + 1), epsilon, key=bound_of)
    assert bound_of(right - 1) <= epsilon < bound_of(right)
    assert 0.01 < binom.sf(right - 1, made, q) <= 0.05, "not far below: it would see nothing"
    assert binom.sf(right - 1, made, q_of_more) > 0.05, "negative control"


@pytest.mark.parametrize(
    ("made", "delta", "epsilon"), [(200, 1e-2, 0.0), (200, 1e-2, 1.0), (1000, 1e-3, 0.5)]
)
def test_the_part_of_delta_covers_a_mechanism_that_sometimes_tells_the_truth(
    made: int, delta: float, epsilon: float
) -> None:
    """With chance delta a canary is told outright: (epsilon, delta)-DP, right with (1 - delta) q + delta."""
    chance = (1 - delta) / (1 + math.exp(-epsilon)) + delta

    def most(delta: float) -> float:
        """Return the largest ratio of the true chance to the bound on it."""
        tails = {v: binom.sf(v - 1, made, chance) for v in range(1, made + 1)}
        seen = {v: tail for v, tail in tails.items() if tail > 1e-12}
        return max(tail / p_value(Guesses(made, made, v), epsilon, delta) for v, tail in seen.items())

    assert most(delta) <= 1 + 1e-9
    assert most(0.0) > 1.1, "negative control: without that part the bound is broken"


@pytest.mark.parametrize("epsilon", [2.0, 4.0])
def test_guesses_about_some_canaries_only_exceed_the_truth_once_in_twenty_at_most(epsilon: float) -> None:
    """The Gaussian mechanism, guessed at the ends: privacy amplifies nobody there beyond (epsilon, delta)."""
    rng, delta = np.random.default_rng(5), 1e-5
    sigma = next(s for s in np.arange(0.3, 10, 0.01) if _gaussian_delta(s, epsilon) <= delta)
    bounds = []
    for _ in range(60):
        is_in = rng.random(4000) < 0.5
        scores = is_in + sigma * rng.standard_normal(4000)
        bounds.append(epsilon_lower_bound(guess(scores, is_in, 60, 60), delta))
    assert (np.array(bounds) > epsilon).mean() <= 0.05
    assert np.median(bounds) > 0.2 * epsilon, "negative control: it sees something"


def _gaussian_delta(sigma: float, epsilon: float) -> float:
    """Return delta of the Gaussian mechanism of sensitivity 1 (Balle and Wang 2018, theorem 8)."""
    low, high = (norm.cdf(sign / (2 * sigma) - epsilon * sigma) for sign in (1, -1))
    return float(low - math.exp(epsilon) * high)


def test_guesses_are_the_highest_and_the_lowest_and_ties_cost_nothing() -> None:
    scores, is_in = np.array([5.0, 1.0, 4.0, 1.0, 3.0]), np.array([True, False, False, True, True])
    assert guess(scores, is_in, 2, 1) == Guesses(5, 3, 2)
    assert guess(scores, is_in, 2, 2) == Guesses(5, 4, 2)
    assert guess(scores, is_in, 0, 0) == Guesses(5, 0, 0)
    equal = np.zeros(1000)
    coins = np.random.default_rng(0).random(1000) < 0.5
    assert epsilon_lower_bound(guess(equal, coins, 300, 300), 0.0) == 0


def test_what_is_no_guess_is_refused() -> None:
    with pytest.raises(ValueError, match="3 and 3 guesses do not fit 5"):
        guess(np.zeros(5), np.zeros(5, bool), 3, 3)
    with pytest.raises(ValueError, match="not a number"):
        guess(np.array([np.nan, 1.0]), np.zeros(2, bool), 1, 1)
    with pytest.raises(ValueError, match="6 right of 5"):
        Guesses(10, 5, 6)
    with pytest.raises(ValueError, match=r"no \(1.0, -1.0\)-differential privacy"):
        p_value(Guesses(10, 10, 10), 1.0, -1.0)
    with pytest.raises(ValueError, match="a confidence lies between 0 and 1"):
        epsilon_lower_bound(Guesses(10, 10, 10), 0.0, 1.0)
