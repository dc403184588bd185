"""What is too small, or too large, for differential privacy to be of use: said before anything is spent.

Functions of declared, public numbers alone. Each returns one sentence with its reason, or None; what no run
may do is a ValueError. Any command may ask them.
"""

import math

from stages.privacy.accounting import Target
from stages.privacy.plan import Plan
from stages.privacy.planning import noise_to_signal, require_meaningful
from stages.privacy.population import Population

NOISE_OVER_ALL_SIGNAL = 1.0
"""Above this, a run's noise is more than all that its units could say if every one of them said the same."""
UNITS_OF_DELTA = 10
"""Delta should leave it unlikely that even one of so many times max_units comes out."""
MOST_EPSILON = 10.0
"""Above this a guess whether somebody was in may be right 99.995 times in a hundred."""


def guess_bound(epsilon: float, delta: float) -> float:
    """Return how often a guess whether one unit was in may be right, both answers being as likely.

    (e^epsilon + delta) / (1 + e^epsilon): from (epsilon, delta)-DP, by hits <= e^epsilon x false alarms +
    delta and the same for misses (Kairouz et al. 2015). The bound of the guarantee; attacks reach less.

    >>> guess_bound(0.0, 0.0), round(guess_bound(8.0, 1e-5), 4), guess_bound(5000.0, 0.0)
    (0.5, 0.9997, 1.0)
    """
    return min(1.0, (1 + delta * math.exp(-epsilon)) / (1 + math.exp(-epsilon)))


def noise_over_signal(plan: Plan, weights: int) -> float:
    """Return the L2 norm of a step's noise over the largest norm that its signal can have.

    Of gradients sigma sqrt(P) / B, for P weights that learn. The K slopes of a unit are clipped together and
    each is noised, so that their noise has sqrt(K) times the norm of one slope's: sigma sqrt(K) / B, whatever
    number of weights learns (Laplace noise: sqrt(2 K) sigma / B).
    """
    slopes = 1 if plan.directions is None else plan.directions.count
    return noise_to_signal(plan, weights) * math.sqrt(slopes)


def what_is_noised(weights: int, slopes: int | None) -> str:
    """Return in words what a step adds noise to; ``slopes`` of zeroth order, None for gradients.

    >>> what_is_noised(500, None), what_is_noised(500, 1), what_is_noised(500, 16)
    ('500 weights that learn', 'one slope a step', '16 slopes a step')
    """
    if slopes is None:
        return f"{weights} weights that learn"
    return "one slope a step" if slopes == 1 else f"{slopes} slopes a step"


def epsilon_that_protects_nothing(target: Target) -> str | None:
    """Say that a promise is none."""
    if target.epsilon <= MOST_EPSILON:
        return None
    bound = guess_bound(target.epsilon, target.delta)
    return (
        f"epsilon {target.epsilon:g} protects nothing: it lets a guess whether somebody's records were in be "
        f"right in {percent(bound)} of cases, and one unit change odds by e^{target.epsilon:g}; take "
        f"{MOST_EPSILON:g} or less: at 1 such a guess is right in {percent(guess_bound(1.0, 0.0))} at most"
    )


def delta_too_large(target: Target, population: Population) -> str | None:
    """Say that a delta is near the chance of publishing one unit; a ValueError where it reaches it."""
    require_meaningful(target, population)
    most = 1 / (UNITS_OF_DELTA * population.max_units)
    if target.delta <= most:
        return None
    return (
        f"privacy.delta {target.delta:g} is large: a mechanism that publishes each unit outright with that "
        f"chance keeps it, and of {population.max_units} units {target.delta * population.max_units:.2g} "
        f"would come out on average; take {most:.3g} or less, 1 / ({UNITS_OF_DELTA} x population.max_units)"
    )


def too_few_units(whole: Plan, weights: int, population: Population) -> str | None:
    """Say that no batch that these units can give lifts the signal out of the noise.

    ``whole`` is the plan of one step that looks at every training unit. Its noise over its signal is that of
    any number of such steps together (sigma grows with the root of the steps, the sum of what they say with
    the steps), so neither steps nor time repair it, and no option of a test had less by sampling. Where it
    exceeds ``NOISE_OVER_ALL_SIGNAL``, the weights that learn move mostly by noise. It falls as 1 / units.
    """
    ratio = noise_over_signal(whole, weights)
    slopes = None if whole.directions is None else whole.directions.count
    fewer = "fewer trainable weights" if slopes is None else "fewer directions" if slopes > 1 else None
    if ratio <= NOISE_OVER_ALL_SIGNAL:
        return None
    wanted = math.ceil(population.max_units * ratio / NOISE_OVER_ALL_SIGNAL)
    return (
        f"population.max_units {population.max_units} is too small to be useful: even if all "
        f"{whole.sampling.expected_batch:g} training units joined every step and said the same, the noise "
        f"on {what_is_noised(weights, slopes)} would be {ratio:.3g} times what they say, in any number of "
        f"steps; about {wanted} units{f', {fewer}' if fewer else ''} or a larger epsilon would be needed"
    )


def rows_beyond(rows_per_unit: int, most_rows: int | None) -> str | None:
    """Say that units have rows which no step looks at; ask it where nobody may count.

    ``most_rows`` is what the largest unit has, where that may be known: of public records, or on the terminal
    of whoever holds the private ones. None is answered with a question, for a count of private rows is
    private. Either sentence belongs on a terminal, and in no file.
    """
    if most_rows is None:
        return (
            f"does any unit have more than {rows_per_unit} rows? A step looks at estimator.rows_per_unit = "
            f"{rows_per_unit} of a unit's, drawn anew each time, so that one unit counts once; the number of "
            "rows is private and was not looked at"
        )
    if most_rows <= rows_per_unit:
        return None
    return (
        f"a unit has {most_rows} rows, and a step looks at estimator.rows_per_unit = {rows_per_unit} of "
        "them, drawn anew each time: raise it to use more at once, at the memory of so many rows a unit"
    )


def warnings_before(target: Target, population: Population, whole: Plan, weights: int) -> list[str]:
    """Return every warning that public numbers allow; what is refused is a ValueError."""
    found = (
        delta_too_large(target, population),
        epsilon_that_protects_nothing(target),
        too_few_units(whole, weights, population),
    )
    return [sentence for sentence in found if sentence is not None]


def percent(share: float) -> str:
    """Return the least percentage that ``share`` does not exceed, with digits enough that it is no certainty.

    >>> percent(0.7311), percent(1 - 4.54e-5), percent(0.5), percent(1.0)
    ('74%', '99.9955%', '50%', 'practically 100%')
    """
    if share > 1 - 1e-9:
        return "practically 100%"
    digits = math.ceil(-math.log10(1 - share)) - 1
    parts = math.ceil(round(100 * share * 10**digits, 6))  # 6: no more for a rounding error of the product
    return f"{parts / 10**digits:.{digits}f}%"
