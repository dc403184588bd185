"""What a run really executed: one line a step, what the accountant needs and nothing private."""

from collections.abc import Sequence
from typing import Any

from stages.privacy.plan import Plan
from stages.training.intents import Begun

VERSION = 3


def trace_json(
    plan: Plan,
    *,
    release: str,
    fingerprint: str,
    plan_digest: str,
    begun: Sequence[Begun],
    adapter: dict[str, str],
    code: str,
    commit: str,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Return the stored form.

    ``begun`` is what the intents say of each step. How often a step was begun stays in the intents: a replay
    after a crash draws the same bits and spends nothing, and what made a step crash may be private.
    """
    if [step.step for step in begun] != list(range(plan.sampling.steps)):
        raise ValueError(f"the run did not begin each of its {plan.sampling.steps} planned steps")
    return {
        "version": VERSION,
        "release": release,
        "fingerprint": fingerprint,
        "population": plan.population.name,
        "plan": plan_digest,
        "mechanism": plan.mechanism,
        "steps": [{"step": step.step, **step.mechanism} for step in begun],
        "adapter": adapter,
        "code": code,
        "commit": commit,
        "versions": versions,
    }
