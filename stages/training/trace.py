"""What a run really executed: one line a step, what the accountant needs and nothing private."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from stages.privacy.plan import Plan
from stages.training.run_folder import Abandoned

VERSION = 1


def trace_json(
    plan: Plan,
    *,
    release: str,
    fingerprint: str,
    plan_digest: str,
    attempts: Counter[int],
    abandoned: Sequence[Abandoned],
    adapter: dict[str, str],
    code: str,
    commit: str,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Return the stored form.

    ``attempts`` counts how often each step was begun; a replay after a crash draws the same bits.
    """
    return {
        "version": VERSION,
        "release": release,
        "fingerprint": fingerprint,
        "population": plan.population.name,
        "plan": plan_digest,
        "mechanism": plan.mechanism,
        "steps": [
            {
                "step": step,
                "attempts": attempts[step],
                "sampler": plan.sampler,
                "rate": plan.sampling.rate,
                "expected_batch": plan.sampling.expected_batch,
                "clip": plan.clip,
                "noise_multiplier": plan.noise_multiplier,
            }
            for step in range(plan.sampling.steps)
        ],
        "abandoned": [
            {"fingerprint": run.fingerprint, "plan": run.header["plan"], "steps": run.steps}
            for run in abandoned
        ],
        "adapter": adapter,
        "code": code,
        "commit": commit,
        "versions": versions,
    }
