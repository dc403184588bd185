"""Check what canaries are said to have shown, and whether that contradicts the epsilon that is claimed."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from stages.core.schema import parse
from stages.privacy.canary_evidence import CanaryEvidence, in_words, read_canaries, rebuilt
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.evidence import CANARIES, STATEMENT, TRACE, Evidence
from stages.privacy.findings import Finding, shown
from stages.privacy.plan import Plan

_NEAR = 1e-4
"""By how much a bound may differ that another version of scipy has solved for."""

_STAGES = ("ingest", "finetune", "canaries")
"""They run with the same section, so that another number of guesses is another training run."""


def read_stored(evidence: Evidence) -> CanaryEvidence | None:
    """Return what canaries are said to have shown; None where nothing can be read."""
    try:
        return read_canaries(evidence.values[CANARIES], CANARIES) if CANARIES in evidence.values else None
    except ValueError:
        return None


def canary_findings(plan: Plan, evidence: Evidence) -> Iterator[Finding]:
    """Yield where the stored result is not what its own counts, the plan, the trace and dvc.lock give.

    A lower bound above the claimed epsilon is an error like any other: on a sound system it happens in at
    most one run of twenty. The coins put canaries in or leave them out; under ``replace_one`` the claim is
    of another neighbour, and of a larger epsilon for every mechanism that a plan can hold.
    """
    if CANARIES not in evidence.contents:
        if any(_configured_for(stage, evidence) for stage in _STAGES):
            yield Finding(CANARIES, "is missing, and dvc.lock records that canaries were configured")
        return
    try:
        found = read_canaries(evidence.values[CANARIES], CANARIES)
    except ValueError as error:
        yield Finding(CANARIES, str(error).removeprefix(f"{CANARIES} "))
        return
    expected = rebuilt(found)
    yield from _counted(found, expected)
    yield from _configured(found, evidence)
    if found.delta != plan.delta:
        yield Finding(CANARIES, f"bounds epsilon at delta {found.delta}; the plan's is {plan.delta}")
    if evidence.values[CANARIES]["adapter"] != evidence.values[TRACE].get("adapter"):
        yield Finding(CANARIES, "is about another adapter than the trace")
    yield from _contradiction(expected, evidence)


def _counted(found: CanaryEvidence, expected: CanaryEvidence) -> Iterator[Finding]:
    for field in fields(CanaryEvidence):
        stored, given = getattr(found, field.name), getattr(expected, field.name)
        if abs(stored - given) > (_NEAR if field.name in ("lower_bound", "ceiling") else 0):
            yield Finding(CANARIES, f"{field.name} is {shown(stored)}; its counts give {shown(given)}")


def _configured_for(stage: str, evidence: Evidence) -> Mapping[str, Any]:
    """Return the section that a stage ran with, empty where it is not recorded."""
    values = {
        field.name: evidence.lock.parameter(stage, "canaries", field.name) for field in fields(CanarySettings)
    }
    return {} if all(value is None for value in values.values()) else values


def _configured(found: CanaryEvidence, evidence: Evidence) -> Iterator[Finding]:
    """Yield guesses that were not the ones fixed before training."""
    sections = {stage: _configured_for(stage, evidence) for stage in _STAGES}
    first, *others = sections.values()
    if any(section != first for section in others):
        yield Finding(CANARIES, f"dvc.lock records other canaries for one of the stages {list(sections)}")
    try:
        settings = parse(dict(first), CanarySettings, "dvc.lock")
    except (ValueError, TypeError, KeyError, OverflowError):
        yield Finding(CANARIES, f"was made with {shown(first)}, dvc.lock says, which no run can have")
        return
    each = settings.guesses_of_each()
    if (found.canaries, found.guessed_in, found.guessed_out) != (settings.count, each, each):
        yield Finding(
            CANARIES,
            f"tells of {found.guessed_in} and {found.guessed_out} guesses about {found.canaries} canaries; "
            f"dvc.lock records {each} and {each} about {settings.count}",
        )


def _contradiction(found: CanaryEvidence, evidence: Evidence) -> Iterator[Finding]:
    claimed = evidence.values[STATEMENT].get("epsilon")
    if isinstance(claimed, int | float) and not isinstance(claimed, bool) and found.lower_bound > claimed:
        yield Finding(CANARIES, f"contradicts the claim: {in_words(found, claimed)}")
