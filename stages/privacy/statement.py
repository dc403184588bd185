"""The privacy statement: one page of facts, derived from plan, trace and charges and from nothing else."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from stages.privacy.charges import spent
from stages.privacy.ledger_evidence import read_ledger, require_settled, total_json
from stages.privacy.plan import Plan
from stages.privacy.rounding import rounded_up

VERSION = 3
LIMITS = (
    "The size of the data set and of its files is treated as public side information.",
    "Gaussian noise in floating point is not exactly Gaussian.",
    "In float32 the padding and the cut of a micro-batch shift other units' gradients by about 1e-7 of their "
    "size.",
    "Whoever holds the run key before it is destroyed can subtract the noise.",
    "One unit is what the population declares; people who appear in several units are covered less.",
    "epsilon counts this pass; the population's total counts every release in the ledger up to its end, and "
    "none that went around the ledger.",
    "How long a step took is not hidden from whoever watches the machine.",
)
OF_SLOPES = (
    "Slopes divide differences of losses by twice the perturbation, which enlarges that rounding to about "
    "1e-4 of a loss."
)


def statement_json(
    plan: Plan, charges: Mapping[str, Any], ledger: Mapping[str, Any], digests: Mapping[str, str]
) -> dict[str, Any]:
    """Return the statement; ``digests`` commits to the evidence files by SHA-256.

    ``ledger`` is the population's chain of entries, in which this pass's releases are settled.

    Guarantee: ``epsilon`` is that of all charges of this pass composed, by the deciding accountant, or null
    where there is no guarantee.
    """
    own = charges["charges"]
    composed = spent(own, plan, charges["composition"])
    history = read_ledger(ledger, plan.population.name)
    require_settled(own, history)
    found: dict[str, Any] = {
        "version": VERSION,
        "population": plan.population.name,
        "population_is_public": plan.population.public,
        "max_units": plan.population.max_units,
        "unit": plan.population.unit,
        "relation": plan.relation,
        "epsilon": composed.epsilon if math.isfinite(composed.epsilon) else None,
        "delta": plan.delta,
        "target_epsilon": plan.target_epsilon,
        "accountant": composed.accountant,
        "cross_checks": composed.checks,
        "composition": charges["composition"],
        "sampler": plan.sampler,
        "steps": plan.sampling.steps,
        "sampling_rate": plan.sampling.rate,
        "expected_batch": plan.sampling.expected_batch,
        "rows_per_unit": plan.rows_per_unit,
        "clip": plan.clip,
        "noise_multiplier": plan.noise_multiplier,
        "within_target": composed.epsilon <= plan.target_epsilon,
        "charges": [
            {key: charge[key] for key in ("stage", "split", "release", "released", "basis")} for charge in own
        ],
        "ledger": {"length": history.length, "head": history.head},
        "population_total": total_json(history, plan.delta),
        "evidence": dict(digests),
        "limits": limits_of(plan),
    }
    found["sentence"] = sentence(found)
    return found


def limits_of(plan: Plan) -> list[str]:
    """Return what the statement does not promise."""
    return [*LIMITS, *([OF_SLOPES] if plan.estimator == "zeroth_order" else [])]


def to_nearest(epsilon: float) -> str:
    """Return an epsilon as sentences said it before they rounded up."""
    return f"{epsilon:.3f}"


def sentence(statement: Mapping[str, Any], said: Callable[[float], str] = rounded_up) -> str:
    """Say the statement in one sentence."""
    population = f"population '{statement['population']}'" + (
        " (declared public: a demonstration, releases are not limited)"
        if statement["population_is_public"]
        else ""
    )
    if statement["epsilon"] is None:
        return (
            f"For {population} this model carries no privacy guarantee: it, or a run counted with it, was "
            "trained without noise."
        )
    relation = str(statement["relation"]).replace("_", " ")
    return (
        f"For {population} this model is ({said(statement['epsilon'])}, "
        f"{statement['delta']:g})-differentially private per "
        f"{statement['unit']} under {relation}, by {statement['accountant']}, for {statement['steps']} "
        "steps with "
        f"{statement['sampler'].capitalize()} sampling at rate {statement['sampling_rate']:g}."
    )


def require_within_budget(statement: Mapping[str, Any]) -> None:
    """Refuse a total over the target, unless the population is declared public."""
    if statement["within_target"] or statement["population_is_public"]:
        return
    spent = "without bound" if statement["epsilon"] is None else rounded_up(statement["epsilon"])
    raise ValueError(
        f"population '{statement['population']}' has spent epsilon {spent} at delta "
        f"{statement['delta']:g}, over the target "
        f"{statement['target_epsilon']:g}: this adapter must not be released"
    )
