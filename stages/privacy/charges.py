"""Charges: what every stage that touches records spent, as serialised privacy events.

Everything here is a pure function of stored evidence, so an auditor rebuilds it and compares.
"""

from collections.abc import Mapping
from typing import Any

import dp_accounting

from stages.privacy.events import event_to_json
from stages.privacy.plan import Plan, read_plan

VERSION = 1


def charges_json(
    plan: Plan, trace: Mapping[str, Any], *, public_choices: Mapping[str, str], heldout_release: str
) -> dict[str, Any]:
    """Return the charges of one pass through the pipeline.

    ``public_choices`` maps each choice that was made on public records to the digest of its file: they are
    listed, and charge nothing. Another run on the population charges every step that it began.
    """
    charges = [_public_choice(released, digest) for released, digest in sorted(public_choices.items())]
    charges.append(_training(plan, trace, str(trace["release"]), len(trace["steps"]), "models/adapter"))
    for run in trace["abandoned"]:
        abandoned = read_plan(run["plan"], f"the plan of abandoned run {run['run']}")
        charges.append(_training(abandoned, trace, str(run["release"]), int(run["steps"]), None))
    charges.append(
        {
            "stage": "evaluate",
            "split": "heldout",
            "population": plan.population.name,
            "unit": plan.population.unit,
            "relation": plan.relation,
            "released": "data/evaluate/metrics.json",
            "basis": f"held-out records are declared {heldout_release}",
            "event": event_to_json(dp_accounting.NoOpDpEvent()),
        }
    )
    return {"version": VERSION, "charges": charges}


def _public_choice(released: str, digest: str) -> dict[str, Any]:
    return {
        "stage": released.split("/")[1],
        "split": "public",
        "released": released,
        "digest": digest,
        "basis": "made on public records",
        "event": event_to_json(dp_accounting.NoOpDpEvent()),
    }


def _training(
    plan: Plan, trace: Mapping[str, Any], name: str, steps: int, released: str | None
) -> dict[str, Any]:
    return {
        "stage": "finetune",
        "split": "train",
        "population": plan.population.name,
        "unit": plan.population.unit,
        "relation": plan.relation,
        "release": name,
        "released": released,
        "digest": dict(trace["adapter"]) if released else None,
        "basis": "executed steps" if released else "steps begun by another run that no statement covers",
        "sampler": plan.sampler,
        "event": event_to_json(plan.event(steps)),
        "code": trace["code"],
        "commit": trace["commit"],
        "versions": dict(trace["versions"]),
    }
