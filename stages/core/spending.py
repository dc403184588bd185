"""What a stage would spend if it ran now, in words, for a person to approve."""

import json
from dataclasses import dataclass

from stages.core.schema import parse


@dataclass(frozen=True, kw_only=True)
class Spending:
    """A release that would be reserved, in words; every figure in it is public."""

    stage: str
    population: str
    what: str
    """What is released and what it costs."""
    remains: str
    """What the ledger still allows, before it."""
    fingerprint: str
    """Of the stage's inputs: an answer is for these alone."""


def spending_from_json(text: str) -> Spending | None:
    """Return what the program has printed."""
    found = json.loads(text)
    return None if found is None else parse(found, Spending, "what a stage would spend")
