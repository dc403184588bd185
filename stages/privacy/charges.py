"""Charges: what every stage that touches records spent in one pass, as serialised privacy events.

Everything here is a pure function of stored evidence, so an auditor rebuilds it and compares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dp_accounting

from stages.privacy.accounting import (
    Composition,
    accountant_of,
    composed_epsilon,
    composed_groups,
    cross_checks,
)
from stages.privacy.events import event_from_json, event_to_json
from stages.privacy.plan import Plan

VERSION = 3
Charge = Mapping[str, Any]
Output = tuple[Mapping[str, Any], str]
"""What a stage wrote, and its SHA-256."""


def charges_json(
    plan: Plan, trace: Mapping[str, Any], *, before: Mapping[str, Output], after: Mapping[str, Output]
) -> dict[str, Any]:
    """Return the charges of one pass through the pipeline, stage after stage.

    ``before`` and ``after`` map the output files of the stages around training to what they hold, their own
    charge among it, and their digest. What was made on public records is listed, and charges nothing.
    """
    return {
        "version": VERSION,
        "composition": plan.others.composition,
        "charges": [*_own(before), _training(plan, trace), *_own(after)],
    }


def _own(outputs: Mapping[str, Output]) -> list[dict[str, Any]]:
    return [
        {**content["charge"], "released": file, "digest": digest}
        for file, (content, digest) in outputs.items()
    ]


def _training(plan: Plan, trace: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "population": plan.population.name,
        "unit": plan.population.unit,
        "relation": plan.relation,
        "stage": "finetune",
        "split": "train",
        "release": trace["release"],
        "sampler": plan.sampler,
        "basis": "executed steps",
        "event": event_to_json(plan.event(len(trace["steps"]))),
        "released": "models/adapter",
        "digest": dict(trace["adapter"]),
        "code": trace["code"],
        "commit": trace["commit"],
        "versions": dict(trace["versions"]),
    }


def require_one_count(charges: Sequence[Charge], plan: Plan) -> None:
    """Refuse charges that count by another population, unit or relation than the plan: they have no sum.

    What was made on public records belongs to no population, and must charge nothing.
    """
    counted = (plan.population.name, plan.population.unit, plan.relation)
    for charge in charges:
        if charge["split"] == "public" and charge["event"] == event_to_json(dp_accounting.NoOpDpEvent()):
            continue
        if (charge["population"], charge["unit"], charge["relation"]) != counted:
            raise ValueError(
                f"the charge of stage {charge['stage']} counts per {charge['unit']} of population "
                f"'{charge['population']}' under {charge['relation']}, the plan per {counted[1]} of "
                f"'{counted[0]}' under {counted[2]}: they have no sum"
            )


def events_by_split(charges: Sequence[Charge]) -> dict[str, list[dp_accounting.DpEvent]]:
    """Return the events on training and on held-out units; what charges nothing is left out."""
    found: dict[str, list[dp_accounting.DpEvent]] = {"train": [], "heldout": []}
    for charge in charges:
        event = event_from_json(charge["event"])
        if event == dp_accounting.NoOpDpEvent():
            continue
        if charge["split"] not in found:
            raise ValueError(f"stage {charge['stage']} charges split '{charge['split']}', which is none")
        found[charge["split"]].append(event)
    return found


@dataclass(frozen=True)
class Spent:
    """The epsilon of a pass, who decided about it, and what each valid check says of it."""

    epsilon: float
    accountant: str
    checks: Mapping[str, float]


def spent(charges: Sequence[Charge], plan: Plan, composition: Composition) -> Spent:
    """Return what all charges composed spend at the plan's delta.

    Guarantee: the pass is (epsilon, delta)-DP for the plan's unit and relation. Checks look at what decides:
    the largest split where splits compose in parallel.
    """
    require_one_count(charges, plan)
    events = events_by_split(charges)
    epsilon = composed_epsilon(events, plan.delta, plan.relation, composition)
    groups = composed_groups(events, composition)
    checks = [cross_checks(group, plan.delta, plan.relation) for group in groups if group]
    names = set.intersection(*(set(check) for check in checks)) if checks else set()
    return Spent(
        epsilon,
        accountant_of(groups, plan.relation),
        {name: max(check[name] for check in checks) for name in sorted(names)},
    )
