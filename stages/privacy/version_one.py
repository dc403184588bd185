"""Evidence of version 1, which had no ledger: read it, and rebuild its charges and statement.

Frozen as it was: old evidence is contradicted by the rules that it was made under. A plan or trace of version
1 is brought into the present form, so that one set of checks serves all versions.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import dp_accounting

from stages.core.canonical import canonical_digest
from stages.core.schema import parse
from stages.privacy.accountants import Relation, price
from stages.privacy.accounting import FINE_GRID, epsilon_of, is_nonprivate
from stages.privacy.events import event_from_json, event_to_json
from stages.privacy.evidence import CHARGES, METRICS, PLAN, STATEMENT, TRACE, Evidence
from stages.privacy.findings import Finding, differences, shown
from stages.privacy.plan import NOTHING_ELSE, Plan
from stages.privacy.priceable import require_priceable
from stages.privacy.stated_accountant import agrees
from stages.privacy.version_two import added_to_plan, added_to_step

_SINCE_CLIP_RULES = ("rows_per_unit", "clip_rule", "clip_groups")
"""What the steps of the first traces did not say."""
_ABANDONED = (
    "steps begun by another run that no statement covers",
    "steps begun by a run that was abandoned",
)
_LIMITS = (
    "58a52ed72a1fcd138553bec3a9ee559883983b96c3e0c4b8fdb44e44bb008c61",
    "24c327e16db74d67387d1c68c6453d39f932eca1084c15ac8d6d2b34a222801c",
    "a2655b5aa84588740e2b0ca7c1c74f76d9892843adeed553a1b0bdacc1858db4",
)
"""SHA-256 of each list of limits that a statement of version 1 ended with."""


def plan_of_one(stored: Mapping[str, Any], where: str = PLAN) -> Plan:
    """Return a plan of version 1; before clips had rules they were flat and whole.

    Errors: whatever is wrong with it is a ValueError that starts with ``where``.
    """
    alone = {"others": asdict(NOTHING_ELSE)}
    early = {"clip_rule": "flat", "clip_groups": "whole"} if stored.get("clip") is not None else {}
    try:
        added = {"clip_rule": None, "clip_groups": None, **alone, **early, **added_to_plan(stored)}
        plan = parse({**added, **stored}, Plan, where)
    except (KeyError, TypeError) as error:
        raise ValueError(str(error.args[0])) from None
    if plan.version != 1 or plan.others != NOTHING_ELSE:
        raise ValueError(f"{where} is no plan of version 1")
    return plan


def trace_of_one(plan: Plan, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trace of version 1 in the present form, for ``trace_findings``.

    Left out are how often a step was tried and which other runs were abandoned, which are charged as begun;
    added is what the first traces did not say of a step and no plan could change.
    """
    trace = {key: value for key, value in stored.items() if key != "abandoned"}
    steps = trace.get("steps")
    if isinstance(steps, list) and all(isinstance(step, dict) for step in steps):
        early = {key: getattr(plan, key) for key in _SINCE_CLIP_RULES}
        trace["steps"] = [
            {**early, **added_to_step(step), **{key: step[key] for key in step if key != "attempts"}}
            for step in steps
        ]
    return trace


def rebuilt_findings_of_one(plan: Plan, evidence: Evidence, charges: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield where charges and statement are not those that the rest of the evidence gives."""
    yield from differences(CHARGES, charges, evidence.values[CHARGES])
    yield from _statement_findings(plan, charges, evidence)
    yield Finding(
        STATEMENT,
        f"is of version 1, which had no ledger: other releases of population {shown(plan.population.name)} "
        "are not in its epsilon",
        "warning" if plan.population.public else "error",
    )


def _is_abandoned(run: Any) -> bool:
    return (
        isinstance(run, dict)
        and run.keys() in ({"run", "release", "plan", "steps"}, {"fingerprint", "plan", "steps"})
        and isinstance(run["plan"], dict)
        and type(run["steps"]) is int
        and run["steps"] > 0
    )


def charges_of_one(plan: Plan, evidence: Evidence) -> dict[str, Any]:
    """Return the charges that plan, trace and choices of version 1 give; a broken trace is a ValueError."""
    trace = evidence.values[TRACE]
    if not isinstance(trace.get("abandoned"), list) or not all(map(_is_abandoned, trace["abandoned"])):
        raise ValueError(f"{TRACE} does not list the runs that were abandoned")
    charges = [_public_choice(file, evidence.sha256(file)) for file in sorted(evidence.choices)]
    charges.append(_training(plan, trace, trace["release"], len(trace["steps"]), "models/adapter"))
    for run in trace["abandoned"]:
        name = run.get("run", run.get("fingerprint"))
        abandoned = plan_of_one(run["plan"], f"the plan of abandoned run {shown(name)}")
        charges.append(_training(abandoned, trace, run.get("release", name), run["steps"], None))
    heldout = evidence.lock.parameter("account", "evaluate", "release")
    charges.append(
        {
            "stage": "evaluate",
            "split": "heldout",
            "population": plan.population.name,
            "unit": plan.population.unit,
            "relation": plan.relation,
            "released": METRICS,
            "basis": f"held-out records are declared {heldout}",
            "event": event_to_json(dp_accounting.NoOpDpEvent()),
        }
    )
    _keep_words(charges, evidence.values[CHARGES].get("charges"))
    return {"version": 1, "charges": charges}


def _keep_words(charges: list[dict[str, Any]], stored: Any) -> None:
    """Take over the words that the basis of an abandoned run had when it was written."""
    for charge, written in zip(charges, stored if isinstance(stored, list) else [], strict=False):
        if (
            charge["basis"] == _ABANDONED[0]
            and isinstance(written, dict)
            and written.get("basis") in _ABANDONED
        ):
            charge["basis"] = written["basis"]


def _public_choice(released: str, digest: str) -> dict[str, Any]:
    return {
        "stage": released.split("/")[1],
        "split": "public",
        "released": released,
        "digest": digest,
        "basis": "made on public records",
        "event": event_to_json(dp_accounting.NoOpDpEvent()),
    }


def _training(
    plan: Plan, trace: Mapping[str, Any], name: str, steps: int, released: str | None
) -> dict[str, Any]:
    return {
        "stage": "finetune",
        "split": "train",
        "population": plan.population.name,
        "unit": plan.population.unit,
        "relation": plan.relation,
        "release": name,
        "released": released,
        "digest": dict(trace["adapter"]) if released else None,
        "basis": "executed steps" if released else _ABANDONED[0],
        "sampler": plan.sampler,
        "event": event_to_json(plan.event(steps)),
        "code": trace["code"],
        "commit": trace["commit"],
        "versions": dict(trace["versions"]),
    }


def _statement_findings(plan: Plan, charges: Mapping[str, Any], evidence: Evidence) -> Iterator[Finding]:
    own = [charge for charge in charges["charges"] if charge.get("population") == plan.population.name]
    if any((charge["unit"], charge["relation"]) != (plan.population.unit, plan.relation) for charge in own):
        yield Finding(CHARGES, "counts by different units or relations, so its charges have no sum")
        return
    events = [event_from_json(charge["event"]) for charge in own]
    for event in events:
        require_priceable(event)
    epsilon = epsilon_of(events, plan.delta, plan.relation)
    stored = evidence.values[STATEMENT]
    if agrees(epsilon, stored.get("epsilon"), plan.accountant):
        epsilon = stored["epsilon"]
    expected: dict[str, Any] = {
        "version": 1,
        "population": plan.population.name,
        "population_is_public": plan.population.public,
        "max_units": plan.population.max_units,
        "unit": plan.population.unit,
        "relation": plan.relation,
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": plan.delta,
        "target_epsilon": plan.target_epsilon,
        "accountant": plan.accountant,
        "rdp_epsilon": _rdp(tuple(events), plan.delta, plan.relation),
        "sampler": plan.sampler,
        "steps": plan.sampling.steps,
        "sampling_rate": plan.sampling.rate,
        "expected_batch": plan.sampling.expected_batch,
        "rows_per_unit": plan.rows_per_unit,
        "clip": plan.clip,
        "noise_multiplier": plan.noise_multiplier,
        "within_target": epsilon <= plan.target_epsilon,
        "releases": [
            {key: charge[key] for key in ("release", "stage", "released", "basis")}
            for charge in own
            if "release" in charge
        ],
        "heldout": own[-1]["basis"],
        "evidence": {file: evidence.sha256(file) for file in (PLAN, TRACE, CHARGES)},
        "limits": stored.get("limits"),
    }
    sentences = _sentences(expected)
    expected["sentence"] = stored.get("sentence") if stored.get("sentence") in sentences else sentences[0]
    if canonical_digest(stored.get("limits")) not in _LIMITS:
        yield Finding(STATEMENT, "limits are not those that any statement of version 1 ended with")
    yield from differences(STATEMENT, expected, stored)


@cache
def _rdp(events: tuple[dp_accounting.DpEvent, ...], delta: float, relation: Relation) -> float | None:
    """Return the one cross-check of version 1, which was left out under replace-one."""
    if relation == "replace_one" or any(is_nonprivate(event) for event in events):
        return None
    return price("RDP", events, delta, relation, grid=FINE_GRID)


def _sentences(statement: Mapping[str, Any]) -> tuple[str, ...]:
    population = f"population '{statement['population']}'" + (
        " (declared public: a demonstration, releases are not limited)"
        if statement["population_is_public"]
        else ""
    )
    if statement["epsilon"] is None:
        none = f"For {population} this model carries no privacy guarantee: it"
        return (
            f"{none}, or a run counted with it, was trained without noise.",
            f"{none} was trained without noise.",
        )
    return (
        f"For {population} this model is ({statement['epsilon']:.3f}, "
        f"{statement['delta']:g})-differentially private per {statement['unit']} under "
        f"{statement['relation'].replace('_', ' ')}, by {statement['accountant']}, for {statement['steps']} "
        f"steps with {statement['sampler'].capitalize()} sampling at rate {statement['sampling_rate']:g}.",
    )
