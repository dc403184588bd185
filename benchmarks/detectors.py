"""Tests of noise scale and of inclusion: each is given draws and says what it holds against them.

Each alarms on a sound system by chance in one of 10,000 uses or fewer, or as often as it is told. Negative
controls show its power (tests/guarantees/test_noise.py, test_sampling.py).

Shapes: n numbers, S steps, U units.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Coins = NDArray[np.bool_]
ALARM = 1e-4


def has_scale(samples_N: Floats, scale: float, alarm: float = ALARM) -> bool:
    """Tell whether the sum of squares lies within chi-square's central part.

    At 200,000 draws a scale that is 1 % off is noticed nearly always; at 40, half the scale.
    """
    low, high = stats.chi2.ppf([alarm / 2, 1 - alarm / 2], samples_N.size)
    return bool(low < (samples_N**2).sum() / scale**2 < high)


def is_gaussian(samples_N: Floats, scale: float, alarm: float = ALARM) -> bool:
    """Tell whether Kolmogorov and Smirnov take it for Gaussian of that scale.

    At 200,000 draws any distribution further than 0.005 from it is noticed.
    """
    return bool(stats.kstest(samples_N, stats.norm(scale=scale).cdf).pvalue > alarm)


def are_independent(left_N: Floats, right_N: Floats) -> bool:
    """Tell whether correlations of values and of squares are within 5 / sqrt(n).

    At 200,000 draws a correlation of 0.02 is noticed.
    """
    bound = 5 / np.sqrt(left_N.size)
    pairs = ((left_N, right_N), (left_N**2, right_N**2))
    return all(abs(np.corrcoef(one, other)[0, 1]) < bound for one, other in pairs)


def rate_pvalue(found_SU: Coins, rate: float) -> float:
    """Return how surprising the number of coins is: of 400,000, a rate 3 % off is 6 deviations away."""
    return float(stats.binomtest(int(found_SU.sum()), found_SU.size, rate).pvalue)


def batch_size_pvalue(found_SU: Coins, rate: float) -> float:
    """Return how surprising the spread of batch sizes is: batches of one size have none, p below 1e-30."""
    return _spread(found_SU.sum(axis=1), found_SU.shape[1], rate)


def unit_count_pvalue(found_SU: Coins, rate: float) -> float:
    """Return how surprising the spread of the units' turns is: in epochs all have as many, as above."""
    return _spread(found_SU.sum(axis=0), found_SU.shape[0], rate)


def together_pvalue(left: Coins, right: Coins, rate: float) -> float:
    """Return how surprising it is that coins of both fall together as often as they do.

    Of 399,000 pairs at rate 0.1, one coin in a hundred that is kept is 5 deviations away.
    """
    return float(stats.binomtest(int((left & right).sum()), left.size, rate**2).pvalue)


def _spread(counts: NDArray[np.int64], tosses: int, rate: float) -> float:
    statistic = ((counts - tosses * rate) ** 2 / (tosses * rate * (1 - rate))).sum()
    return float(2 * min(stats.chi2.cdf(statistic, len(counts)), stats.chi2.sf(statistic, len(counts))))
