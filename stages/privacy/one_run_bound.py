"""A lower bound on epsilon from one run into which canaries were put by independent coins.

Steinke, Nasr and Jagielski 2023, *Privacy Auditing with One (1) Training Run* (arXiv 2305.08846): every
canary is in with chance 1/2; whoever sees the output guesses for some, and abstains for the others. Privacy
bounds how many guesses can be right.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom

CONFIDENCE = 0.95
LARGEST_EPSILON = 50.0
"""There q rounds to 1, and nothing contradicts it."""


@dataclass(frozen=True)
class Guesses:
    """What was guessed of ``canaries`` coins, by a rule that was fixed before anybody looked."""

    canaries: int
    made: int
    """Guesses that were made: k+ for in, k- for out."""
    right: int

    def __post_init__(self) -> None:
        """Refuse numbers that are no guesses."""
        if not 0 <= self.right <= self.made <= self.canaries:
            raise ValueError(
                f"{self.right} right of {self.made} guesses on {self.canaries} canaries is impossible"
            )


def guess(scores_M: NDArray[np.float64], is_in_M: NDArray[np.bool_], most: int, least: int) -> Guesses:
    """Guess that the ``most`` highest scores are in and the ``least`` lowest are out, and count who is right.

    Ties are broken by position, which no coin decides. A score that is not a number is a ValueError.

    >>> guess(np.array([0.1, 3.0, 2.0, 0.2]), np.array([False, True, False, False]), most=1, least=2)
    Guesses(canaries=4, made=3, right=3)
    """
    if len(scores_M) != len(is_in_M) or most < 0 or least < 0 or most + least > len(scores_M):
        raise ValueError(f"{most} and {least} guesses do not fit {len(scores_M)} canaries")
    if np.isnan(scores_M).any():
        raise ValueError("a canary's score is not a number: nothing can be guessed from it")
    order = np.argsort(scores_M, kind="stable")
    right = int(is_in_M[order[len(order) - most :]].sum()) + int((~is_in_M[order[:least]]).sum())
    return Guesses(len(scores_M), most + least, right)


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Return a bound on the chance of at least so many right guesses under (epsilon, delta)-DP.

    Theorem 5.2 with the choice of alpha in appendix D of the paper: beta + 2 m delta alpha, where each guess
    is right with chance q = e^epsilon / (1 + e^epsilon), beta = P[Bin(r, q) >= v] and
    alpha = max over i >= 1 of (P[Bin(r, q) >= v - i] - beta) / i.

    Edge cases: without guesses, or without a right one, nothing is shown: 1. A negative epsilon, and a delta
    outside [0, 1], are a ValueError.
    """
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise ValueError(f"there is no ({epsilon}, {delta})-differential privacy")
    if guesses.right == 0:
        return 1.0
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(binom.sf(guesses.right - 1, guesses.made, q))
    i_V = np.arange(1, guesses.right + 1)
    alpha = float(((binom.sf(guesses.right - i_V - 1, guesses.made, q) - beta) / i_V).max())
    return min(1.0, beta + 2 * guesses.canaries * delta * alpha)


def epsilon_lower_bound(guesses: Guesses, delta: float, confidence: float = CONFIDENCE) -> float:
    """Return the largest epsilon that the guesses contradict, 0.0 where they contradict none.

    Guarantee: on a mechanism that is (epsilon, delta)-DP per canary, and on coins that nothing else has
    seen, it exceeds epsilon with chance at most ``1 - confidence``, once: for the one run and the one pair of
    guess counts that were fixed beforehand.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")

    def excess(epsilon: float) -> float:
        return p_value(guesses, epsilon, delta) - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    found = float(brentq(excess, 0.0, LARGEST_EPSILON, xtol=1e-6))
    return max(0.0, found - 1e-6)


def ceiling(made: int, canaries: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """Return what ``made`` guesses could show at all: the bound if every one were right."""
    return epsilon_lower_bound(Guesses(canaries, made, made), delta, confidence)
