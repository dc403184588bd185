"""What follows from public numbers alone: what a test can detect, and what pruning does to noise."""

import math
from collections.abc import Sequence
from dataclasses import replace

from scipy.stats import chi2, ncf

from stages.privacy.accounting import COARSE_GRID
from stages.privacy.plan import Plan
from stages.privacy.planning import noise_to_signal

_DELTAS = (1e-3, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Where else than at the plan's own delta the accountant is asked, to bound what a test can detect."""


def noise_energy_kept(keep: float, block: int) -> float:
    """Return the share of pure-noise energy left when the ``keep`` strongest blocks stay.

    The energy of ``block`` weights is chi-squared with as many degrees of freedom, and the mean of such a
    variable above its quantile is a tail of chi-squared with two degrees more. Blocks of one weight: pruning
    by magnitude. Mechanism 2 of Dual-Priv Pruning (Wei et al. 2025).

    >>> round(noise_energy_kept(0.8, 1), 3), round(noise_energy_kept(0.5, 1), 3)
    (0.996, 0.929)
    """
    return float(chi2.sf(chi2.isf(keep, block), block + 2))


def chance_of_right_choice(signal_to_noise: float, block: int, steps: int) -> float:
    """Return how often a block with signal outscores one without, energies summed over ``steps`` noisy steps.

    ``signal_to_noise`` is root mean square per weight. The ratio of the two energies follows a non-central F
    distribution.

    >>> round(chance_of_right_choice(0.0, 100, 1), 9)
    0.5
    """
    freedom = block * steps
    # scipy 1.17's ncf.sf gives -0.5 where there is no signal; its cdf is right.
    return 1.0 - float(ncf.cdf(1.0, freedom, freedom, freedom * signal_to_noise**2))


def largest_signal_to_noise(plan: Plan, weights: int) -> float | None:
    """Return signal over noise, per weight, if a whole expected batch pulled one way at full clip.

    B / (sigma sqrt(P)) for P ``weights``. The true ratio is private. None without noise, and for zeroth
    order, whose noise is not independent between weights: it lies along the directions of a step.
    """
    if plan.noise_multiplier is None or plan.directions is not None:
        return None
    return float(plan.sampling.expected_batch / (plan.noise_multiplier * weights**0.5))


def noise_over_signal(plan: Plan, weights: int) -> float:
    """Return the L2 norm of the noise on what a step releases over the most its clipped mean can be.

    Zeroth order releases K slopes, clipped together: sqrt(K) times the ratio of one of them.
    """
    together = 1 if plan.directions is None else plan.directions.count
    return noise_to_signal(plan, weights) * math.sqrt(together)


def canary_share(canaries: int, plan: Plan) -> float:
    """Return canaries over the expected batch, in a step of an average run: half of them are planted.

    What they pull at the weights is at most this share of what a whole expected batch pulls.
    """
    return canaries / 2 * plan.sampling.rate / plan.sampling.expected_batch


def epsilon_by_step(plan: Plan, points: int = 10) -> list[dict[str, float]]:
    """Return what the pass spends after about ``points`` numbers of steps, the last included.

    A function of the plan alone, hence public. Empty without noise.
    """
    if plan.mechanism == "none":
        return []
    total = plan.sampling.steps
    steps = sorted({1, *(max(1, round(total * part / points)) for part in range(1, points + 1))})
    spent = (plan.others.epsilon(plan.event(step), plan.target) for step in steps)
    return [{"steps": step, "epsilon": epsilon} for step, epsilon in zip(steps, spent, strict=True)]


def most_detected(plan: Plan, false_alarms: Sequence[float]) -> dict[float, float]:
    """Return the largest share of members that any test can find, by the share of others it accuses.

    A test says of a unit whether it was trained on. For every (epsilon, delta) that the whole pass keeps, it
    finds at most exp(epsilon) x false alarms + delta, and at most 1 - exp(-epsilon) x (1 - delta - false
    alarms) (Kairouz, Oh and Viswanath 2015, theorem 2.1): the least of them over several delta.

    Guarantee: never below the true bound, for the accountant rounds up (of Laplace noise: beyond the rounding
    of floats). Empty without noise.
    """
    if plan.mechanism == "none":
        return {}
    event = plan.event(plan.sampling.steps)
    points = []
    for delta in sorted({plan.delta, *(each for each in _DELTAS if each >= plan.delta)}):
        epsilon = plan.others.epsilon(event, replace(plan.target, delta=delta), COARSE_GRID)
        points.append((math.exp(min(epsilon, 700.0)), delta))
    return {
        share: min(
            1.0, *(min(ratio * share + delta, 1 - (1 - delta - share) / ratio) for ratio, delta in points)
        )
        for share in false_alarms
    }
