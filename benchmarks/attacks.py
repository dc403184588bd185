"""Attacks on a tuned model: was this unit trained on, and which answer was it taught?

Shapes: N units, K shadow models.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

Floats = NDArray[np.float64]
Members = NDArray[np.bool_]


def likelihood_ratio_scores(losses_N: Floats, shadow_losses_KN: Floats) -> Floats:
    """Return how far each loss lies below what models that never saw the unit give, in deviations, (N,).

    Offline LiRA with one variance for all units, as is advised where shadows are few (Carlini et al. 2022,
    *Membership Inference Attacks From First Principles*, sections V and VI).
    """
    spread = float(np.sqrt(shadow_losses_KN.var(axis=0, ddof=1).mean()))
    return np.asarray((shadow_losses_KN.mean(axis=0) - losses_N) / max(spread, 1e-12))


def area_under_curve(scores_N: Floats, is_member_N: Members) -> float:
    """Return the chance that a member scores above a non-member, ties counting half.

    >>> area_under_curve(np.array([3.0, 1.0, 2.0]), np.array([True, False, False]))
    1.0
    """
    members, others = scores_N[is_member_N], scores_N[~is_member_N]
    return float(mannwhitneyu(members, others).statistic / (len(members) * len(others)))


def true_positive_rate(scores_N: Floats, is_member_N: Members, false_positive_rate: float) -> float:
    """Return the share of members above the score that so few non-members exceed.

    >>> scores, is_member = np.array([9.0, 8.0, 1.0, 2.0, 3.0]), np.array([True, True, True, False, False])
    >>> round(true_positive_rate(scores, is_member, 0.01), 3)
    0.667
    """
    others = np.sort(scores_N[~is_member_N])[::-1]
    allowed = int(false_positive_rate * len(others))
    return float((scores_N[is_member_N] > others[allowed]).mean())


def exposure(loss: float, other_losses: Floats) -> float:
    """Return log2 of how many candidates there are over the rank of the true one among them.

    Carlini et al. 2019, *The Secret Sharer*, section 4.2: 0 bits for the last, all of them for the first.

    >>> exposure(0.5, np.array([1.0, 2.0, 3.0]))
    2.0
    """
    rank = 1 + int((other_losses < loss).sum())
    return float(np.log2((len(other_losses) + 1) / rank))
