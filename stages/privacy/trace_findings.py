"""Compare what a run executed, step by step, with its plan."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from stages.core.canonical import canonical_digest
from stages.privacy.artifact_names import is_digest, is_plain
from stages.privacy.evidence import TRACE
from stages.privacy.findings import Finding, shown
from stages.privacy.plan import Plan

_KEYS = {
    "version",
    "release",
    "fingerprint",
    "population",
    "plan",
    "mechanism",
    "steps",
    "adapter",
    "code",
    "commit",
    "versions",
}
_SHOWN = 3


def trace_form_findings(trace: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield where a trace has not the form of one: nothing else can be said of it then."""
    if trace.keys() != _KEYS:
        odd = sorted(_KEYS.symmetric_difference(trace))
        yield Finding(TRACE, f"has not the form of a trace: {shown(odd)} are missing or unknown")
        return
    forms = {
        "release": _is_hex(trace["release"], 32),
        "fingerprint": _is_hex(trace["fingerprint"], 32),
        "plan": is_digest(trace["plan"]),
        "code": is_digest(trace["code"]),
        "commit": trace["commit"] == "unknown" or _is_hex(trace["commit"], 40, 64),
        "steps": isinstance(trace["steps"], list) and all(isinstance(step, dict) for step in trace["steps"]),
        "adapter": isinstance(trace["adapter"], dict) and bool(trace["adapter"]),
        "versions": isinstance(trace["versions"], dict)
        and all(isinstance(text, str) and text.isprintable() for text in trace["versions"].values()),
    }
    for key, holds in forms.items():
        if not holds:
            yield Finding(TRACE, f"has not the form of a trace: {key} is {shown(trace[key])}")
    if forms["adapter"]:
        for name, digest in trace["adapter"].items():
            if not is_plain(name) or "/" in name:
                yield Finding(TRACE, f"names the adapter file {shown(name)}, which is no plain file name")
            if not is_digest(digest):
                yield Finding(TRACE, f"gives the adapter file {shown(name)} no SHA-256")


def trace_findings(plan: Plan, stored_plan: Any, trace: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what contradicts a trace of the right form; it commits to the plan's JSON value."""
    if trace["plan"] != canonical_digest(stored_plan):
        yield Finding(TRACE, "was executed under another plan")
    if (trace["population"], trace["mechanism"]) != (plan.population.name, plan.mechanism):
        yield Finding(
            TRACE,
            f"names population {shown(trace['population'])} and mechanism {shown(trace['mechanism'])}, not "
            "those of the plan",
        )
    numbers = [step.get("step") for step in trace["steps"]]
    in_order = all(type(number) is int and number == place for place, number in enumerate(numbers))
    if len(numbers) != plan.sampling.steps or not in_order:
        yield Finding(
            TRACE,
            f"holds {len(trace['steps'])} steps, not the {plan.sampling.steps} planned ones, each once and "
            "in order",
        )
    wrong = [step for step in trace["steps"] if step.keys() != {"step", *_planned(plan)}]
    if wrong:
        yield Finding(TRACE, f"step {shown(wrong[0].get('step'))} does not say what a step has to")
    else:
        yield from _steps(plan, trace["steps"])


def _steps(plan: Plan, steps: list[dict[str, Any]]) -> Iterator[Finding]:
    for key, value in _planned(plan).items():
        other = [step for step in steps if isinstance(step[key], bool) or step[key] != value]
        for step in other[:_SHOWN]:
            yield Finding(
                TRACE, f"step {step['step']}: {key} {shown(step[key])} is not the planned {shown(value)}"
            )
        if len(other) > _SHOWN:
            yield Finding(TRACE, f"{key} is not the planned {shown(value)} in {len(other)} steps")


def _planned(plan: Plan) -> dict[str, Any]:
    return {
        "estimator": plan.estimator,
        "directions": None if plan.directions is None else asdict(plan.directions),
        "noise": None if plan.mechanism == "none" else plan.mechanism,
        "sampler": plan.sampler,
        "rate": plan.sampling.rate,
        "expected_batch": plan.sampling.expected_batch,
        "rows_per_unit": plan.rows_per_unit,
        "clip": plan.clip,
        "clip_rule": plan.clip_rule,
        "clip_groups": plan.clip_groups,
        "noise_multiplier": plan.noise_multiplier,
    }


def _is_hex(text: Any, *lengths: int) -> bool:
    return isinstance(text, str) and len(text) in lengths and bool(re.fullmatch("[0-9a-f]+", text, re.ASCII))
