"""The one-run bound is the paper's, read slowly, and holds on a mechanism whose epsilon is known."""

import math

import numpy as np
import pytest

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


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
def test_on_randomized_response_it_is_close_and_exceeds_the_truth_as_rarely_as_it_says(
    epsilon: float,
) -> None:
    """Randomized response answers right with chance q: the theorem's worst case, epsilon exactly."""
    rng = np.random.default_rng(1)
    right = rng.binomial(1000, 1 / (1 + math.exp(-epsilon)), size=400)
    bound_of = {v: epsilon_lower_bound(Guesses(1000, 1000, v), 0.0) for v in set(right.tolist())}
    bounds = np.array([bound_of[v] for v in right.tolist()])
    assert (bounds > epsilon).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert np.median(bounds) > 0.8 * epsilon - 0.1


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
