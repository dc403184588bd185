"""Evidence of version 2: bring it into the present form, and rebuild its charges and statement.

Frozen as it was, like ``version_one``: what version 3 added to a plan and to the steps of a trace is filled
in with what every run of version 2 did, and what it added to charges and statement is left out again.
"""

from collections.abc import Mapping
from typing import Any

from stages.core.canonical import canonical_digest
from stages.core.schema import parse
from stages.privacy.plan import Plan, read_plan

_ADDED_TO_CHARGES: frozenset[str] = frozenset()
"""Keys that charges of version 2 do not have."""
_ADDED_TO_STATEMENT: frozenset[str] = frozenset()
"""Keys that a statement of version 2 does not have."""
_LIMITS = "a7245d17c4d05e576aec0c062acd820d16dc88a4c2d58206bbcd84778a42fa1d"
"""SHA-256 of the list of limits that every statement of version 2 ended with."""


def added_to_plan(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a plan of versions 1 and 2 did not say, and what held for all their runs."""
    is_private = stored.get("mechanism") != "none"
    return {"estimator": "gradient" if is_private else "nonprivate", "directions": None}


def added_to_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step of a trace of versions 1 and 2 did not say, and what held for all their runs."""
    is_private = step.get("noise_multiplier") is not None
    known = {"mechanism": "gaussian" if is_private else "none"}
    return {**added_to_plan(known), "noise": "gaussian" if is_private else None}


def plan_of_two(stored: Mapping[str, Any], where: str) -> Plan:
    """Return a plan of version 2; whatever is wrong with it is a ValueError that starts with ``where``."""
    try:
        plan = parse(_with(added_to_plan(stored), stored, where), Plan, where)
    except (KeyError, TypeError) as error:
        raise ValueError(str(error.args[0])) from None
    if plan.version != 2:
        raise ValueError(f"{where} is no plan of version 2")
    return plan


def plan_of_a_run(stored: Mapping[str, Any], where: str) -> Plan:
    """Return the plan of a run that may have begun before this version did."""
    return plan_of_two(stored, where) if stored.get("version") == 2 else read_plan(stored, where)


def trace_of_two(stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a trace of version 2 in the present form, for ``trace_findings``; ValueErrors as for a plan."""
    steps = stored.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return dict(stored)  # which has not the form of a trace, and is told so
    return {**stored, "steps": [_with(added_to_step(step), step, where) for step in steps]}


def charges_of_two(charges: Mapping[str, Any]) -> dict[str, Any]:
    """Return charges of the present form, made from evidence of version 2, as they were then."""
    return {key: value for key, value in charges.items() if key not in _ADDED_TO_CHARGES} | {"version": 2}


def statement_of_two(statement: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a statement of the present form, made from evidence of version 2, as it was then.

    Its limits are those of the ``stored`` one where that ends with the words of version 2.
    """
    kept = {key: value for key, value in statement.items() if key not in _ADDED_TO_STATEMENT}
    limits = stored.get("limits")
    is_of_two = canonical_digest(limits) == _LIMITS
    return {**kept, "version": 2, "limits": limits if is_of_two else statement["limits"]}


def _with(added: Mapping[str, Any], stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = sorted(added.keys() & stored.keys())
    if known:
        raise ValueError(f"{where} is of version 2, which had no {', '.join(known)}")
    return {**added, **stored}
