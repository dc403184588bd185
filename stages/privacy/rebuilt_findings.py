"""Rebuild charges and statement from the rest of the evidence, and compare them with the stored ones."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stages.privacy.charges import charges_json
from stages.privacy.events import event_from_json
from stages.privacy.evidence import CHARGES, LEDGER, METRICS, PLAN, STATEMENT, TRACE, Evidence
from stages.privacy.findings import Finding, differences, shown
from stages.privacy.plan import Plan
from stages.privacy.priceable import require_priceable
from stages.privacy.stated_accountant import accountant_findings, agrees, is_near
from stages.privacy.statement import sentence, statement_json, to_nearest
from stages.privacy.version_two import charges_of_two, statement_of_two

_COMMITTED = (PLAN, TRACE, METRICS, CHARGES, LEDGER)
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)
"""What our own readers raise when a document has not the form that a stage writes."""


def rebuilt_charges(plan: Plan, trace: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """Return the charges that plan, trace, choices and metrics give; a ValueError says why there are none.

    The ``trace`` is that of the evidence in the present form; the charges are in that of its version.
    """
    before = {file: (evidence.values[file], evidence.sha256(file)) for file in evidence.choices}
    after = {METRICS: (evidence.values[METRICS], evidence.sha256(METRICS))}
    try:
        charges = charges_json(plan, trace, before=before, after=after)
        for charge in charges["charges"]:
            _require_form(charge)
    except _BROKEN as error:
        raise ValueError(f"cannot be rebuilt: {_said(error)}") from None
    return charges_of_two(charges) if evidence.version == 2 else charges


def _require_form(charge: Mapping[str, Any]) -> None:
    """Refuse a charge that a stage's output holds in another form than a stage writes."""
    words = [charge[key] for key in ("stage", "split", "sampler", "basis")]
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"a charge says {shown(words)}, not words")
    release = charge["release"]
    if release is not None and not (
        isinstance(release, str) and re.fullmatch("[0-9a-f]{32}", release, re.ASCII)
    ):
        raise ValueError(f"a charge names the release {shown(release)}, not 32 hex digits")
    require_priceable(event_from_json(charge["event"]))


def statement_findings(plan: Plan, evidence: Evidence, charges: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield where the statement is not the one that the rest of the evidence gives."""
    stored = evidence.values[STATEMENT]
    committed = {file: evidence.sha256(file) for file in _COMMITTED}
    try:
        expected = statement_json(plan, charges, evidence.values[LEDGER], committed)
    except _BROKEN as error:
        yield Finding(STATEMENT, f"cannot be rebuilt: {_said(error)}")
        return
    yield from accountant_findings(STATEMENT, stored.get("accountant"), expected["accountant"])
    if evidence.version == 2:
        expected = statement_of_two(expected, stored)
    rounded = _as_rounded(expected, stored)
    nearest = sentence(rounded, to_nearest)
    if stored.get("sentence") == nearest != rounded["sentence"]:
        rounded["sentence"] = nearest
        yield Finding(
            STATEMENT,
            f"says epsilon {to_nearest(rounded['epsilon'])} for {rounded['epsilon']}: sentences were once "
            "rounded to the nearest number, and are rounded up now",
            "warning",
        )
    yield from differences(STATEMENT, rounded, stored)


def _as_rounded(expected: dict[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rebuilt statement with the stored prices, wherever these differ by rounding alone."""
    rounded = {**expected, "accountant": stored.get("accountant")}
    if expected["epsilon"] is not None and agrees(
        expected["epsilon"], stored.get("epsilon"), stored.get("accountant")
    ):
        rounded["epsilon"] = stored["epsilon"]
        rounded["within_target"] = stored["epsilon"] <= expected["target_epsilon"]
    checks = stored.get("cross_checks")
    if isinstance(checks, dict):
        rounded["cross_checks"] = {
            name: checks[name] if name in checks and is_near(value, checks[name]) else value
            for name, value in expected["cross_checks"].items()
        }
    return {**rounded, "sentence": sentence(rounded)}


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.args[0] if error.args else ''}"
