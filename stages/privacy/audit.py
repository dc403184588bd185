"""Contradict stored evidence: recompute everything that can be recomputed, and compare.

Pure functions of file contents. The audit proves consistency; it cannot prove that whoever held the run key
really added noise.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.core.canonical import canonical_json
from stages.privacy.charges import charges_json
from stages.privacy.plan import Plan, read_plan
from stages.privacy.statement import statement_json

PLAN = "data/plan.json"
TRACE = "data/finetune/trace.json"
CHARGES = "data/account/charges.json"
STATEMENT = "data/account/statement.json"
LEDGER = "data/account/ledger.json"
METRICS = "data/evaluate/metrics.json"
CHOICES = ("data/profile/profile.json", "data/calibrate/calibration.json")
EVIDENCE = (PLAN, TRACE, METRICS, CHARGES, LEDGER, STATEMENT, *CHOICES)
_STAGE_OF = {
    PLAN: "plan",
    TRACE: "finetune",
    CHARGES: "account",
    STATEMENT: "account",
    LEDGER: "account",
    METRICS: "evaluate",
    CHOICES[0]: "profile",
    CHOICES[1]: "calibrate",
}
_ESTIMATOR_OF = {"gaussian": "gradient", "none": "nonprivate"}


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold, and the file it was found in."""

    file: str
    problem: str


def findings(
    contents: Mapping[str, Any], digests: Mapping[str, Mapping[str, str]], lock: Mapping[str, Any]
) -> list[Finding]:
    """Return everything that contradicts the evidence; nothing means that it holds together.

    ``contents`` maps each file of ``EVIDENCE`` to its JSON value, ``digests`` to its ``sha256`` and ``md5``;
    ``lock`` is the content of ``dvc.lock``.
    """
    found = [*_recorded(digests, lock)]
    try:
        plan = read_plan(contents[PLAN], PLAN)
    except (ValueError, KeyError, TypeError) as error:
        return [*found, Finding(PLAN, str(error.args[0]))]
    found += _plan(plan, lock)
    try:
        found += _trace(plan, contents[TRACE], contents[PLAN])
        outputs = {file: (contents[file], digests[file]["sha256"]) for file in (*CHOICES, METRICS)}
        after = {METRICS: outputs.pop(METRICS)}
        charges = charges_json(plan, contents[TRACE], before=outputs, after=after)
        found += _equal(CHARGES, charges, contents[CHARGES])
        evidence = {file: digests[file]["sha256"] for file in (PLAN, TRACE, METRICS, CHARGES, LEDGER)}
        statement = statement_json(plan, charges, contents[LEDGER], evidence)
        found += _equal(STATEMENT, statement, contents[STATEMENT])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        found.append(Finding(TRACE, f"has not the form of a trace: {error!r}"))
    return found


def weight_findings(trace: Mapping[str, Any], present: Mapping[str, str]) -> list[Finding]:
    """Compare the SHA-256 of the adapter's files that are present with those the trace names."""
    return [
        Finding(f"models/adapter/{name}", "is not the file that the trace names")
        for name, digest in sorted(present.items())
        if trace["adapter"].get(name) != digest
    ] + [
        Finding(f"models/adapter/{name}", "is missing beside the other files of the adapter")
        for name in sorted(set(trace["adapter"]) - set(present))
    ]


def _recorded(digests: Mapping[str, Mapping[str, str]], lock: Mapping[str, Any]) -> Iterator[Finding]:
    for file, stage in _STAGE_OF.items():
        outs = lock.get("stages", {}).get(stage, {}).get("outs", [])
        recorded = next((out.get("md5") for out in outs if out.get("path") == file), None)
        if recorded is None:
            yield Finding(file, "is not recorded in dvc.lock")
        elif recorded != digests[file]["md5"]:
            yield Finding(file, "is not the file that dvc.lock records")


def _plan(plan: Plan, lock: Mapping[str, Any]) -> Iterator[Finding]:
    if plan.delta >= 1 / plan.population.max_units:
        yield Finding(PLAN, f"delta {plan.delta} is not below 1 / max_units")
    if (plan.mechanism == "none") != (
        plan.noise_multiplier is None or plan.clip is None or plan.epsilon is None
    ):
        yield Finding(
            PLAN, f"mechanism '{plan.mechanism}' does not go with its noise multiplier, clip and epsilon"
        )
        return
    if plan.mechanism == "gaussian":
        epsilon = plan.others.epsilon(plan.event(plan.sampling.steps), plan.target)
        if plan.epsilon is None or not abs(epsilon - plan.epsilon) <= 1e-9 * epsilon:
            yield Finding(PLAN, f"promises epsilon {plan.epsilon}, but its steps spend {epsilon:.6f}")
        if not epsilon <= plan.target_epsilon:
            yield Finding(PLAN, f"spends epsilon {epsilon:.6f}, over its target {plan.target_epsilon}")
    configured = {
        "rate": (plan.sampling.rate, ("sampling", "rate")),
        "steps": (plan.sampling.steps, ("sampling", "steps")),
        "expected_batch": (plan.sampling.expected_batch, ("sampling", "expected_batch")),
        "rows_per_unit": (plan.rows_per_unit, ("estimator", "rows_per_unit")),
        "delta": (plan.delta, ("privacy", "delta")),
        "target_epsilon": (plan.target_epsilon, ("privacy", "epsilon")),
        "relation": (plan.relation, ("privacy", "relation")),
        "population.name": (plan.population.name, ("population", "name")),
        "population.max_units": (plan.population.max_units, ("population", "max_units")),
        "population.public": (plan.population.public, ("population", "public")),
        "population.unit": (plan.population.unit, ("population", "unit")),
        "mechanism": (_ESTIMATOR_OF.get(plan.mechanism), ("estimator", "kind")),
    }
    if plan.mechanism == "gaussian":
        configured |= {
            key: (getattr(plan, key), ("estimator", key)) for key in ("clip", "clip_rule", "clip_groups")
        }
    for name, (value, keys) in configured.items():
        if value != _parameter(lock, "plan", *keys):
            yield Finding(PLAN, f"{name} {value} is not the public configuration that dvc.lock records")


def _trace(plan: Plan, trace: Mapping[str, Any], raw_plan: Any) -> Iterator[Finding]:
    if trace["plan"] != hashlib.sha256(canonical_json(raw_plan)).hexdigest():
        yield Finding(TRACE, "was executed under another plan")
    if [step["step"] for step in trace["steps"]] != list(range(plan.sampling.steps)):
        yield Finding(TRACE, f"does not hold the {plan.sampling.steps} planned steps, each once and in order")
    planned = {
        "sampler": plan.sampler,
        "rate": plan.sampling.rate,
        "expected_batch": plan.sampling.expected_batch,
        "rows_per_unit": plan.rows_per_unit,
        "clip": plan.clip,
        "clip_rule": plan.clip_rule,
        "clip_groups": plan.clip_groups,
        "noise_multiplier": plan.noise_multiplier,
    }
    for step in trace["steps"]:
        for key, value in planned.items():
            if step[key] != value:
                yield Finding(TRACE, f"step {step['step']}: {key} {step[key]} is not the planned {value}")
    if (trace["population"], trace["mechanism"]) != (plan.population.name, plan.mechanism):
        yield Finding(TRACE, "names another population or mechanism than the plan")


def _equal(file: str, expected: Any, found: Any, where: str = "") -> Iterator[Finding]:
    """Compare a rebuilt document with the stored one, value by value."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(set(expected) | set(found)):
            yield from _equal(
                file, expected.get(key), found.get(key), f"{where}.{key}" if where else str(key)
            )
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found, strict=True)):
            yield from _equal(file, *pair, f"{where}[{index}]")
    elif expected != found or isinstance(expected, bool) != isinstance(found, bool):
        yield Finding(file, f"{where} is {found!r}; the evidence gives {expected!r}")


def _parameter(lock: Mapping[str, Any], stage: str, section: str, key: str) -> Any:
    values = lock.get("stages", {}).get(stage, {}).get("params", {}).get("params.yaml", {})
    return values.get(section, {}).get(key)
