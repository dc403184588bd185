"""What canaries showed of a tuned model: how many guesses were right, and what epsilon that excludes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages.core.schema import parse
from stages.privacy.artifact_names import is_digest
from stages.privacy.canary_settings import MOST
from stages.privacy.findings import shown
from stages.privacy.one_run_bound import (
    CONFIDENCE,
    LARGEST_EPSILON,
    Guesses,
    ceiling,
    epsilon_lower_bound,
)

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CanaryEvidence:
    """The stored result of stage ``canaries``; no canaries give a bound of 0."""

    version: int
    canaries: int
    guessed_in: int
    """k+, the canaries said to have been planted."""
    guessed_out: int
    """k-, the canaries said not to have been."""
    right: int
    """Guesses of either kind that were right."""
    confidence: float
    delta: float
    lower_bound: float
    """Below the epsilon of a mechanism that gives so many right guesses, with this confidence."""
    ceiling: float
    """The bound that so many guesses give at most, if every one is right."""


def canaries_json(guesses: Guesses, each: int, delta: float, adapter: Mapping[str, str]) -> dict[str, Any]:
    """Return the result as a stage stores it; ``adapter`` is the SHA-256 of every file of the model asked."""
    return {**asdict(_result(guesses, each, delta)), "adapter": dict(adapter)}


def read_canaries(value: Any, where: str) -> CanaryEvidence:
    """Return a stored result; what no stage writes is a ValueError that starts with ``where``."""
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise ValueError(f"{where} is no result of canaries of version {VERSION}")
    adapter = value.get("adapter")
    if not isinstance(adapter, dict) or not adapter or not all(map(is_digest, adapter.values())):
        raise ValueError(f"{where} names no adapter by SHA-256")
    try:
        rest = {key: item for key, item in value.items() if key != "adapter"}
        found = parse(rest, CanaryEvidence, where)
        made = guesses_of(found)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(str(error.args[0])) from None
    if found.guessed_in < 0 or found.guessed_out < 0 or made.canaries > MOST:
        raise ValueError(f"{where} tells of {shown(made.made)} guesses about {shown(made.canaries)} canaries")
    if not (0 <= found.delta < 1 and 0 < found.confidence < 1):
        raise ValueError(f"{where} tells of delta {found.delta} and confidence {found.confidence}")
    if not (0 <= found.lower_bound <= LARGEST_EPSILON and 0 <= found.ceiling <= LARGEST_EPSILON):
        raise ValueError(f"{where} tells of a bound of {found.lower_bound} and a ceiling of {found.ceiling}")
    return found


def rebuilt(found: CanaryEvidence) -> CanaryEvidence:
    """Return what the counts of a stored result give."""
    return _result(guesses_of(found), found.guessed_in, found.delta)


def guesses_of(found: CanaryEvidence) -> Guesses:
    """Return the counts of a stored result; a ValueError where they are impossible."""
    return Guesses(found.canaries, found.guessed_in + found.guessed_out, found.right)


def in_words(found: CanaryEvidence, claimed: float | None) -> str:
    """Say what was found, beside the epsilon that is claimed; None claims nothing.

    >>> in_words(_result(Guesses(200, 50, 40), 25, 1e-5), 8.0)
    '40 of 50 guesses about 200 canaries were right: with 95 % confidence epsilon is at least 0.77, of 8.000 \
claimed; 50 right ones could have shown 2.77'
    """
    if not found.canaries:
        return "no canaries were planted"
    made = found.guessed_in + found.guessed_out
    claim = "and none is claimed" if claimed is None else f"of {claimed:.3f} claimed"
    return (
        f"{found.right} of {made} guesses about {found.canaries} canaries were right: with "
        f"{100 * found.confidence:g} % confidence epsilon is at least {_down(found.lower_bound)}, {claim}; "
        f"{made} right ones could have shown {_down(found.ceiling)}"
    )


def _down(bound: float) -> str:
    """Return a lower bound with two places, rounded against us."""
    return f"{math.floor(100 * bound) / 100:.2f}"


def _result(guesses: Guesses, each: int, delta: float) -> CanaryEvidence:
    return CanaryEvidence(
        version=VERSION,
        canaries=guesses.canaries,
        guessed_in=each if guesses.made else 0,
        guessed_out=guesses.made - each if guesses.made else 0,
        right=guesses.right,
        confidence=CONFIDENCE,
        delta=delta,
        lower_bound=epsilon_lower_bound(guesses, delta),
        ceiling=ceiling(guesses.made, guesses.canaries, delta),
    )
