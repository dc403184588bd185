"""Check every charge of a pass: whose it is, how it was sampled, and that the plan counted on it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import dp_accounting

from stages.privacy.events import event_from_json
from stages.privacy.evidence import CHARGES, LOCK, METRICS, PLAN, STAGE_OF, Evidence, Lock
from stages.privacy.findings import Finding, shown
from stages.privacy.plan import Beside, Plan, beside_of
from stages.privacy.priced_precision import is_priced

_TRAINING = "finetune"


def charge_findings(plan: Plan, evidence: Evidence, charges: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield every charge that does not fit its stage, its sampler, the configuration or the plan."""
    listed = charges["charges"]
    names = Counter(charge["release"] for charge in listed if charge["release"] is not None)
    for name, count in names.items():
        if count > 1:
            yield Finding(
                CHARGES, f"counts release {shown(name)} for {count} stages: one release has one charge"
            )
    for charge in listed:
        yield from _charge(plan, charge)
    for file in (*evidence.choices, METRICS):
        yield from _stage(file, evidence)
    yield from _planned(plan, listed)
    yield from _unpriced(plan, evidence)


def _charge(plan: Plan, charge: Mapping[str, Any]) -> Iterator[Finding]:
    stage, event = charge["stage"], event_from_json(charge["event"])
    if (charge["release"] is None) != (event == dp_accounting.NoOpDpEvent()):
        yield Finding(
            CHARGES, f"stage {shown(stage)} charges without a release, or a release without a charge"
        )
    if charge["release"] is None:
        return
    counted = (charge["population"], charge["unit"], charge["relation"])
    if counted != (plan.population.name, plan.population.unit, plan.relation):
        yield Finding(
            CHARGES,
            f"stage {shown(stage)} counts per {shown(counted[1])} of {shown(counted[0])} under "
            f"{shown(counted[2])}, which is not what the plan counts by",
        )
    once = event.event if isinstance(event, dp_accounting.SelfComposedDpEvent) else event
    sampled = isinstance(once, dp_accounting.PoissonSampledDpEvent)
    private = not isinstance(event, dp_accounting.NonPrivateDpEvent)
    if private and sampled != (charge["sampler"] == "poisson"):
        yield Finding(
            CHARGES,
            f"stage {shown(stage)} was sampled by {shown(charge['sampler'])}, which is not what its event "
            f"{shown(charge['event'])} assumes",
        )


def _stage(file: str, evidence: Evidence) -> Iterator[Finding]:
    """Yield an output whose charge is not that of its stage, or not of what DVC records that it ran on."""
    stage, value = STAGE_OF[file], evidence.values[file]
    charge, lock = value["charge"], evidence.lock
    if charge["stage"] != stage:
        yield Finding(file, f"charges for stage {shown(charge['stage'])}, and {stage} wrote it")
    configured = lock.parameter(stage, stage, "release" if file == METRICS else "on")
    if "records" in value and value["records"] != configured:
        yield Finding(
            file,
            f"was made on {shown(value['records'])} records, it says; dvc.lock records {shown(configured)}",
        )
    if charge["release"] is None:
        if configured != "public":
            yield Finding(
                file, f"charges nothing; dvc.lock records that it was made on {shown(configured)} records"
            )
        return
    if configured == "public":
        yield Finding(file, "charges a release; dvc.lock records that it was made on public records")
    split = "heldout" if file == METRICS else "train"
    if charge["split"] != split:
        yield Finding(file, f"charges split {shown(charge['split'])}, and {stage} reads {split}")
    yield from _mechanism(file, stage, value, lock)


def _mechanism(file: str, stage: str, value: Mapping[str, Any], lock: Lock) -> Iterator[Finding]:
    """Yield a noised sum whose stated mechanism is not the one charged, or not the one configured."""
    made = beside_of(value["charge"])
    stated, configured = value.get("mechanism"), lock.parameter(stage, stage, "private")
    for where, mechanism in (("its mechanism", stated), ("dvc.lock", configured)):
        known = mechanism if isinstance(mechanism, dict) else {}
        if (known.get("rate"), known.get("noise_multiplier")) != (made.rate, made.noise_multiplier):
            yield Finding(
                file,
                f"charges rate {made.rate} and noise {made.noise_multiplier}; {where} says "
                f"{shown(known.get('rate'))} and {shown(known.get('noise_multiplier'))}",
            )
    if isinstance(stated, dict) and isinstance(configured, dict):
        other = sorted(key for key in stated if stated[key] != configured.get(key))
        if other:
            yield Finding(file, f"was made with other {shown(other)} than dvc.lock records")


def _planned(plan: Plan, charges: list[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield what the plan did not count on, and what it counted on and nobody charged."""
    made = [
        beside_of(charge)
        for charge in charges
        if charge["release"] is not None and charge["stage"] != _TRAINING
    ]
    for one in made:
        if one not in plan.others.charges:
            yield Finding(PLAN, f"did not count on {_said(one)}")
    for one in plan.others.charges:
        if one not in made:
            yield Finding(PLAN, f"counted on {_said(one)}, which nothing charges")


def _unpriced(plan: Plan, evidence: Evidence) -> Iterator[Finding]:
    """Yield a precision in which people who are not public may not be trained with."""
    precision = evidence.lock.parameter(_TRAINING, "model", "precision")
    if not is_priced(precision, plan.population):
        yield Finding(
            LOCK,
            f"records that {_TRAINING} computed in {shown(precision)}, whose rounding nothing prices: people "
            "who are not public are trained with in 'float32' only",
        )


def _said(one: Beside) -> str:
    return f"the charge of stage {shown(one.stage)} on {one.split} with noise {one.noise_multiplier}"
