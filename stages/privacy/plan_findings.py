"""Check a plan against itself, and against the public configuration that DVC recorded."""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.privacy.accounting import ACCOUNTANT
from stages.privacy.evidence import PLAN, Lock
from stages.privacy.findings import Finding, shown
from stages.privacy.plan import Plan
from stages.privacy.priceable import require_priceable
from stages.privacy.stated_accountant import accountant_findings, agrees

_ONCE_CALLED = {"population": "privacy.population", "privacy": "privacy.target"}
"""Names of sections of params.yaml in the first evidence."""
_CONFIGURED: Mapping[str, tuple[str, str]] = {
    "sampling.rate": ("sampling", "rate"),
    "sampling.steps": ("sampling", "steps"),
    "sampling.expected_batch": ("sampling", "expected_batch"),
    "rows_per_unit": ("estimator", "rows_per_unit"),
    "delta": ("privacy", "delta"),
    "target_epsilon": ("privacy", "epsilon"),
    "relation": ("privacy", "relation"),
    "population.name": ("population", "name"),
    "population.max_units": ("population", "max_units"),
    "population.public": ("population", "public"),
    "population.unit": ("population", "unit"),
}
_OF_NOISE = ("clip", "clip_rule", "clip_groups")


def plan_findings(plan: Plan, stored: Mapping[str, Any], lock: Lock) -> Iterator[Finding]:
    """Yield what contradicts a plan; ``stored`` is its JSON value, of which early ones lack keys."""
    if plan.delta >= 1 / plan.population.max_units:
        yield Finding(
            PLAN, f"delta {plan.delta} is not below 1 / max_units: at that delta one unit may be published"
        )
    yield from _mechanism(plan)
    keys = dict(_CONFIGURED)
    if plan.mechanism != "none":
        keys |= {key: ("estimator", key) for key in _OF_NOISE if key in stored}
    for name, (section, key) in keys.items():
        yield from _configured(name, _at(stored, name), lock, section, key)
    yield from _configured("estimator", plan.estimator, lock, "estimator", "kind")
    yield from _directions(plan, lock)


def _directions(plan: Plan, lock: Lock) -> Iterator[Finding]:
    """Yield what contradicts the directions of zeroth order and the noise on its slopes."""
    if (plan.estimator == "zeroth_order") != (plan.directions is not None):
        yield Finding(PLAN, f"estimator '{plan.estimator}' does not go with its directions")
    if plan.estimator == "gradient" and plan.mechanism != "gaussian":
        yield Finding(PLAN, f"estimator 'gradient' does not go with mechanism '{plan.mechanism}'")
    if (plan.estimator == "nonprivate") != (plan.mechanism == "none"):
        yield Finding(PLAN, f"estimator '{plan.estimator}' does not go with mechanism '{plan.mechanism}'")
    if plan.directions is None:
        return
    recorded = lock.parameter("plan", "estimator", "zeroth_order")
    known = recorded if isinstance(recorded, dict) else {}
    start = lock.parameter("plan", "seed", "start")
    seed = lock.parameter("plan", "seed", "public") if start is None else start  # once there was one
    of_plan = (plan.directions.count, plan.directions.perturbation, plan.mechanism, plan.directions.seed)
    if of_plan != (known.get("directions"), known.get("perturbation"), known.get("noise"), seed):
        yield Finding(PLAN, "its directions are not those of the public configuration that dvc.lock records")


def _mechanism(plan: Plan) -> Iterator[Finding]:
    missing = plan.noise_multiplier is None or plan.clip is None or plan.epsilon is None
    if (plan.mechanism == "none") != missing:
        yield Finding(
            PLAN,
            f"mechanism '{plan.mechanism}' does not go with its noise multiplier, clip and epsilon",
        )
    elif plan.epsilon is None:
        yield from accountant_findings(PLAN, plan.accountant, ACCOUNTANT)
    else:
        event = plan.event(plan.sampling.steps)
        try:
            for one in (event, *(charge.event() for charge in plan.others.charges)):
                require_priceable(one)
            epsilon = plan.others.epsilon(event, plan.target)
            deciding = plan.others.accountant(event, plan.relation)
        except ValueError as error:
            yield Finding(PLAN, f"cannot be priced: {error}")
            return
        yield from accountant_findings(PLAN, plan.accountant, deciding)
        if not agrees(epsilon, plan.epsilon, plan.accountant):
            yield Finding(PLAN, f"promises epsilon {plan.epsilon}, but its steps spend {epsilon:.6f}")
        elif not plan.epsilon <= plan.target_epsilon:
            yield Finding(PLAN, f"spends epsilon {epsilon:.6f}, over its target {plan.target_epsilon}")


def _configured(name: str, value: Any, lock: Lock, section: str, key: str) -> Iterator[Finding]:
    recorded = lock.parameter("plan", section, key)
    if recorded is None:
        recorded = lock.parameter("plan", _ONCE_CALLED.get(section, section), key)
    if isinstance(value, bool) != isinstance(recorded, bool) or value != recorded:
        yield Finding(
            PLAN,
            f"{name} {shown(value)} is not the public configuration that dvc.lock records, {shown(recorded)}",
        )


def _at(stored: Mapping[str, Any], name: str) -> Any:
    value: Any = stored
    for part in name.split("."):
        value = value[part]
    return value
