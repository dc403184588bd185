"""Check what canaries are said to have shown, and whether that contradicts the epsilon that is claimed."""

from collections.abc import Iterator
from dataclasses import fields

from stages.privacy.canary_evidence import CanaryEvidence, in_words, read_canaries, rebuilt
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.evidence import CANARIES, STAGE_OF, STATEMENT, TRACE, Evidence
from stages.privacy.findings import Finding, shown
from stages.privacy.plan import Plan

_NEAR = 1e-4
"""By how much a bound may differ that another version of scipy has solved for."""


def read_stored(evidence: Evidence) -> CanaryEvidence | None:
    """Return what canaries are said to have shown; None where nothing can be read."""
    try:
        return read_canaries(evidence.values[CANARIES], CANARIES) if CANARIES in evidence.values else None
    except ValueError:
        return None


def canary_findings(plan: Plan, evidence: Evidence) -> Iterator[Finding]:
    """Yield where the stored result is not what its own counts, the plan, the trace and dvc.lock give.

    A lower bound above the claimed epsilon is an error like any other: on a sound system it happens in at
    most one run of twenty.
    """
    stage = STAGE_OF[CANARIES]
    if CANARIES not in evidence.contents:
        if evidence.lock.stage(stage):
            yield Finding(CANARIES, f"is missing, and dvc.lock records that stage {stage} wrote it")
        return
    try:
        found = read_canaries(evidence.values[CANARIES], CANARIES)
    except ValueError as error:
        yield Finding(CANARIES, str(error).removeprefix(f"{CANARIES} "))
        return
    yield from _counted(found)
    yield from _configured(found, evidence)
    if found.delta != plan.delta:
        yield Finding(CANARIES, f"bounds epsilon at delta {found.delta}; the plan's is {plan.delta}")
    if evidence.values[CANARIES]["adapter"] != evidence.values[TRACE].get("adapter"):
        yield Finding(CANARIES, "is about another adapter than the trace")
    yield from _contradiction(found, evidence)


def _counted(found: CanaryEvidence) -> Iterator[Finding]:
    expected = rebuilt(found)
    for field in fields(CanaryEvidence):
        stored, given = getattr(found, field.name), getattr(expected, field.name)
        if abs(stored - given) > (_NEAR if field.name in ("lower_bound", "ceiling") else 0):
            yield Finding(CANARIES, f"{field.name} is {shown(stored)}; its counts give {shown(given)}")


def _configured(found: CanaryEvidence, evidence: Evidence) -> Iterator[Finding]:
    """Yield guesses that were not the ones fixed beforehand."""
    stage = STAGE_OF[CANARIES]
    names = [field.name for field in fields(CanarySettings)]
    values = {name: evidence.lock.parameter(stage, "canaries", name) for name in names}
    try:
        settings = CanarySettings(**values)
    except (ValueError, TypeError):
        yield Finding(CANARIES, f"was made with {shown(values)}, dvc.lock says, which no run can have")
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
