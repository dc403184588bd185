"""What a training run tells the ledger: before its first private record, and when its output is written."""

from collections.abc import Mapping
from typing import Any

from stages.privacy.approval import Approval, NotAsked
from stages.privacy.plan import Plan
from stages.privacy.reserving import Reservation, Settlement


def reservation(
    plan: Plan, stage: str, release: str, approval: Approval | NotAsked | None = None
) -> Reservation:
    """Return the most that a run of ``plan`` may spend: every planned step."""
    return Reservation(
        release=release,
        stage=stage,
        split="train",
        sampler=plan.sampler,
        event=plan.event(plan.sampling.steps),
        approval=approval,
    )


def settlement(plan: Plan, trace: Mapping[str, Any]) -> Settlement:
    """Return what a run executed and what it released, as its trace says."""
    return Settlement(
        release=trace["release"],
        event=plan.event(len(trace["steps"])),
        released={f"models/adapter/{name}": digest for name, digest in trace["adapter"].items()},
        code=trace["code"],
        commit=trace["commit"],
        versions=trace["versions"],
    )
