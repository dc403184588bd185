"""Contradict stored evidence: recompute everything that can be recomputed, and compare.

Pure functions of file contents. The audit proves consistency and, with a signature, who vouches for it; it
cannot prove that whoever held the run key really added noise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.privacy.canary_findings import canary_findings
from stages.privacy.charge_findings import charge_findings
from stages.privacy.evidence import CHARGES, LEDGER, PLAN, TRACE, Evidence
from stages.privacy.findings import Finding, differences
from stages.privacy.ledger_findings import checked_history, export_findings, ledger_findings
from stages.privacy.lock_findings import lock_findings
from stages.privacy.plan import Plan, read_plan
from stages.privacy.plan_findings import plan_findings
from stages.privacy.rebuilt_findings import rebuilt_charges, statement_findings
from stages.privacy.recomputed import Priced, disagreements, priced_charges, priced_pass
from stages.privacy.trace_findings import trace_findings, trace_form_findings
from stages.privacy.version_one import charges_of_one, plan_of_one, rebuilt_findings_of_one, trace_of_one
from stages.privacy.version_two import plan_of_two, trace_of_two


@dataclass(frozen=True)
class Audit:
    """What was found, and the prices that were recomputed on the way."""

    findings: tuple[Finding, ...]
    priced: tuple[Priced, ...]


def audit_of(evidence: Evidence) -> Audit:
    """Return everything that contradicts the evidence; no error among it means that it holds together.

    Nothing that evidence holds raises: what cannot be understood is a finding.
    """
    found = [*evidence.unreadable, *lock_findings(evidence), *export_findings(evidence)]
    if evidence.unreadable:
        return Audit(tuple(found), ())
    stored = evidence.values[PLAN]
    try:
        plan = _plan(evidence)
    except ValueError as error:
        return Audit((*found, Finding(PLAN, str(error).removeprefix(f"{PLAN} "))), ())
    found += [Finding(file, "belongs to evidence of another version: remove it") for file in evidence.odd()]
    try:
        trace = _trace(plan, evidence)
    except ValueError as error:
        return Audit((*found, Finding(TRACE, str(error).removeprefix(f"{TRACE} "))), ())
    broken = [*trace_form_findings(trace)]
    found += [*plan_findings(plan, stored, evidence.lock), *broken]
    if broken:
        return Audit(tuple(found), ())
    found += [*trace_findings(plan, stored, trace), *canary_findings(plan, evidence)]
    try:
        charges = _charges(plan, trace, evidence)
        priced = [*priced_charges(charges, plan), *priced_pass(charges, plan)]
        found += [*_rebuilt(plan, evidence, charges), *disagreements(priced)]
    except (ValueError, OverflowError) as error:
        return Audit((*found, Finding(CHARGES, f"cannot be recomputed: {error}")), ())
    return Audit(tuple(found), tuple(priced))


def _plan(evidence: Evidence) -> Plan:
    stored = evidence.values[PLAN]
    if evidence.version == 1:
        return plan_of_one(stored)
    if evidence.version == 2:
        return plan_of_two(stored, PLAN)
    try:
        return read_plan(stored, PLAN)
    except (KeyError, TypeError) as error:
        raise ValueError(str(error.args[0])) from None


def _trace(plan: Plan, evidence: Evidence) -> Mapping[str, Any]:
    """Return the trace in the present form."""
    stored = evidence.values[TRACE]
    if evidence.version == 1:
        return trace_of_one(plan, stored)
    return trace_of_two(stored, TRACE) if evidence.version == 2 else stored


def _charges(plan: Plan, trace: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    if evidence.version == 1:
        return charges_of_one(plan, evidence)
    return rebuilt_charges(plan, trace, evidence)


def _rebuilt(plan: Plan, evidence: Evidence, charges: Mapping[str, Any]) -> Iterator[Finding]:
    if evidence.version == 1:
        yield from rebuilt_findings_of_one(plan, evidence, charges)
    else:
        yield from charge_findings(plan, evidence, charges)
        yield from differences(CHARGES, charges, evidence.values[CHARGES])
        try:
            history = checked_history(evidence.values[LEDGER])
        except ValueError as error:
            yield Finding(LEDGER, str(error))
            return
        yield from ledger_findings(plan, evidence, charges, history)
        yield from statement_findings(plan, evidence, charges)


def weight_findings(trace: Mapping[str, Any], present: Mapping[str, str]) -> Iterator[Finding]:
    """Compare the SHA-256 of the adapter's files that are present with those the trace names."""
    named = trace.get("adapter")
    named = named if isinstance(named, dict) else {}
    for name in sorted(present):
        if named.get(name) != present[name]:
            yield Finding(f"models/adapter/{name}", "is not the file that the trace names")
    for name in sorted(named.keys() - present.keys()):
        yield Finding(f"models/adapter/{name}", "is missing beside the other files of the adapter")
