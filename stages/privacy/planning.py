"""Find the mechanism that keeps a whole pass within its privacy target, before any private gradient."""

import math
from collections.abc import Callable
from typing import Any, Literal

import dp_accounting

from stages.privacy.accounting import ACCOUNTANT, COARSE_GRID, FINE_GRID, Target, step_event
from stages.privacy.clipping_rule import Clipping
from stages.privacy.directions import Directions, Distribution
from stages.privacy.plan import NOTHING_ELSE, VERSION, EstimatorKind, Others, Plan
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling

SAMPLER: Literal["poisson"] = "poisson"
_FINEST_NOISE = 1e-3
_SMALLEST_NOISE, _LARGEST_NOISE = 0.3, 1e4


def plan_for(
    kind: EstimatorKind,
    target: Target,
    population: Population,
    sampling: Sampling,
    *,
    clipping: Clipping,
    rows_per_unit: int,
    others: Others = NOTHING_ELSE,
    directions: Directions | None = None,
    noise: Distribution = "gaussian",
) -> Plan:
    """Return the plan of an estimator kind; ``directions`` and ``noise`` are those of zeroth order."""
    more: dict[str, Any] = {"rows_per_unit": rows_per_unit, "others": others}
    if kind == "nonprivate":
        return plan_nonprivate(target, population, sampling, **more)
    if (kind == "zeroth_order") != (directions is not None):
        raise ValueError("estimator.kind zeroth_order, and no other, looks along directions")
    if kind == "zeroth_order":
        more |= {"directions": directions, "noise": noise}
    return plan_private(target, population, sampling, clipping=clipping, **more)


def plan_private(
    target: Target,
    population: Population,
    sampling: Sampling,
    *,
    clipping: Clipping,
    rows_per_unit: int,
    others: Others = NOTHING_ELSE,
    directions: Directions | None = None,
    noise: Distribution = "gaussian",
) -> Plan:
    """Find the smallest noise multiplier (to 1e-3) at which all steps and the other charges meet the target.

    Guarantee: ``plan.others.epsilon(plan.event(plan.sampling.steps), target) <= target.epsilon``.
    """
    require_meaningful(target, population)
    require_pure(target, others, noise)
    already = others.epsilon(dp_accounting.NoOpDpEvent(), target)
    if already >= target.epsilon:
        stages = ", ".join(charge.stage for charge in others.charges)
        raise ValueError(
            f"the private choices of {stages} alone spend epsilon {already:.3f} of the target "
            f"{target.epsilon:g}: give them more noise, make them on public records, or raise privacy.epsilon"
        )

    def spent(noise_multiplier: float, grid: float = FINE_GRID) -> float:
        event = step_event(sampling.rate, noise_multiplier, sampling.steps, noise)
        return others.epsilon(event, target, grid)

    noise_multiplier = _smallest_meeting(spent, target.epsilon)
    if noise_multiplier is None:
        raise ValueError(
            f"no noise multiplier up to {_LARGEST_NOISE:g} meets epsilon {target.epsilon:g} at delta "
            f"{target.delta:g} in "
            f"{sampling.steps} steps at rate {sampling.rate:g}: raise privacy.epsilon or take "
            "fewer steps"
        )
    event = step_event(sampling.rate, noise_multiplier, sampling.steps, noise)
    return Plan(
        **_shared(target, population, sampling, rows_per_unit, others),
        accountant=others.accountant(event, target.relation),
        mechanism=noise,
        estimator="gradient" if directions is None else "zeroth_order",
        directions=directions,
        clip=clipping.clip,
        clip_rule=clipping.rule,
        clip_groups=clipping.groups,
        noise_multiplier=noise_multiplier,
        epsilon=spent(noise_multiplier),
    )


def plan_nonprivate(
    target: Target,
    population: Population,
    sampling: Sampling,
    *,
    rows_per_unit: int,
    others: Others = NOTHING_ELSE,
) -> Plan:
    """Describe the reference without privacy; only a public population may have one."""
    if not population.public:
        raise ValueError(
            f"estimator.kind nonprivate releases the records of population '{population.name}', which is "
            "not declared public: "
            "choose estimator.kind gradient"
        )
    return Plan(
        **_shared(target, population, sampling, rows_per_unit, others),
        accountant=ACCOUNTANT,
        mechanism="none",
        estimator="nonprivate",
        directions=None,
        clip=None,
        clip_rule=None,
        clip_groups=None,
        noise_multiplier=None,
        epsilon=None,
    )


def _shared(
    target: Target, population: Population, sampling: Sampling, rows_per_unit: int, others: Others
) -> dict[str, Any]:
    """Return what a plan says whatever its mechanism is."""
    return {
        "version": VERSION,
        "population": population,
        "relation": target.relation,
        "target_epsilon": target.epsilon,
        "delta": target.delta,
        "sampler": SAMPLER,
        "sampling": sampling,
        "rows_per_unit": rows_per_unit,
        "others": others,
    }


def require_meaningful(target: Target, population: Population) -> None:
    """Refuse a delta at which one unit in the population could simply be published."""
    if target.delta >= 1 / population.max_units:
        raise ValueError(
            f"privacy.delta {target.delta} must be below 1 / population.max_units = "
            f"{1 / population.max_units:.3g}: "
            "at that delta a mechanism may publish one unit outright"
        )


def require_pure(target: Target, others: Others, noise: Distribution) -> None:
    """Refuse delta 0 where a Gaussian is involved, which has no epsilon there."""
    if target.delta > 0:
        return
    if noise == "gaussian":
        raise ValueError(
            "privacy.delta 0 asks for a pure epsilon, which Gaussian noise never gives: set estimator.kind "
            "to zeroth_order and estimator.zeroth_order.noise to laplace, or raise privacy.delta"
        )
    if others.charges:
        stages = ", ".join(charge.stage for charge in others.charges)
        raise ValueError(
            f"privacy.delta 0 asks for a pure epsilon, but {stages} would add Gaussian noise: make those "
            "choices on public records, or raise privacy.delta"
        )


def noise_to_signal(plan: Plan, weights: int) -> float:
    """Return the L2 norm of the mean update's noise over the largest norm a clipped mean gradient can have.

    sigma sqrt(P) / B for P trainable weights and expected batch B; of zeroth order's slopes, each of
    which is bounded by the clip, sigma / B (Laplace noise: sqrt(2) sigma / B).
    """
    if plan.noise_multiplier is None:
        return 0.0
    if plan.directions is not None:
        spread = math.sqrt(2) if plan.mechanism == "laplace" else 1.0
        return spread * plan.noise_multiplier / plan.sampling.expected_batch
    return plan.noise_multiplier * math.sqrt(weights) / plan.sampling.expected_batch


def warnings_of(plan: Plan, weights: int) -> list[str]:
    """Return what is allowed but silly, one sentence each."""
    found = []
    if plan.target_epsilon > 10 and plan.mechanism != "none":
        found.append(
            f"epsilon {plan.target_epsilon:g} protects little: one unit may change odds by "
            f"e^{plan.target_epsilon:g}"
        )
    ratio = noise_to_signal(plan, weights)
    if ratio > 10:
        found.append(
            f"the noise is {ratio:.1f} times the largest possible signal ({weights} trainable weights, "
            "expected batch "
            f"{plan.sampling.expected_batch:g}): train fewer weights, enlarge the batch or raise epsilon"
        )
    ceiling = plan.sampling.rate * plan.population.max_units
    if plan.sampling.expected_batch > 2 * ceiling:
        found.append(
            f"sampling.expected_batch {plan.sampling.expected_batch:g} is more than twice what "
            f"{plan.population.max_units} units "
            f"at rate {plan.sampling.rate:g} can give ({ceiling:g}): updates shrink without any gain in "
            "privacy"
        )
    return found


def _smallest_meeting(spent: Callable[..., float], epsilon: float) -> float | None:
    """Return the smallest multiple of the finest noise at which ``spent`` is within ``epsilon``.

    Bracketed on a coarse grid, which overestimates epsilon and is quick; its slope then says how much less
    noise the fine grid needs, and a step or two on that grid settles it.
    """
    enough = 1.0
    while spent(enough, COARSE_GRID) > epsilon:
        enough *= 1.5
        if enough > _LARGEST_NOISE:
            return None
    while enough > _SMALLEST_NOISE and spent(enough / 1.5, COARSE_GRID) <= epsilon:
        enough /= 1.5
    high = _bisect(lambda noise: spent(noise, COARSE_GRID) <= epsilon, enough / 1.5, enough)
    step = 0.03 * high
    slope = (spent(high - step, COARSE_GRID) - spent(high, COARSE_GRID)) / step
    less = (epsilon - spent(high)) / slope if slope > 0 else 0.0
    found = math.ceil((high - less) / _FINEST_NOISE)
    while spent(_noise(found)) > epsilon:
        found += 1
    while _noise(found) > _SMALLEST_NOISE / 2 and spent(_noise(found - 1)) <= epsilon:
        found -= 1
    return _noise(found)


def _noise(multiple: int) -> float:
    return round(multiple * _FINEST_NOISE, 3)


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the smallest multiple of the finest noise above ``low`` that holds; ``high`` does."""
    below, above = math.floor(low / _FINEST_NOISE), math.ceil(high / _FINEST_NOISE)
    while above - below > 1:
        middle = (below + above) // 2
        if holds(_noise(middle)):
            above = middle
        else:
            below = middle
    return _noise(above)
