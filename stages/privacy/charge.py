"""What the output of a stage says that it spent, beside what it found: one charge."""

from typing import Any

import dp_accounting

from stages.privacy.accountants import Relation
from stages.privacy.chain import Split
from stages.privacy.events import event_to_json
from stages.privacy.noised_sum import NoisedSum
from stages.privacy.population import Population


def public_choice(stage: str) -> dict[str, Any]:
    """Return the charge of a choice made on public records, which belong to no population: none."""
    return _charge(stage, "public", None, None, "made on public records")


def declared_public(stage: str, split: Split, population: Population, relation: Relation) -> dict[str, Any]:
    """Return the charge of exact figures on units that their owner declares public: none."""
    words = {"train": "training", "heldout": "held-out"}[split]
    return _charge(stage, split, population, relation, f"{words} records are declared public")


def noised_sum_charge(
    stage: str,
    split: Split,
    population: Population,
    relation: Relation,
    release: str,
    mechanism: NoisedSum,
) -> dict[str, Any]:
    """Return the charge of one noised sum over the units of a split."""
    return _charge(stage, split, population, relation, "one noised sum over private units") | {
        "release": release,
        "sampler": mechanism.sampler,
        "event": event_to_json(mechanism.event()),
    }


def _charge(
    stage: str, split: str, population: Population | None, relation: Relation | None, basis: str
) -> dict[str, Any]:
    return {
        "stage": stage,
        "split": split,
        "population": population.name if population else None,
        "unit": population.unit if population else None,
        "relation": relation,
        "release": None,
        "sampler": "none",
        "basis": basis,
        "event": event_to_json(dp_accounting.NoOpDpEvent()),
    }
