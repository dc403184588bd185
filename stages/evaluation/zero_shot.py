"""Counts of the model that was not tuned, made once for all runs that ask for them."""

from collections.abc import Callable
from typing import Any

from stages.core.remembered import remembered
from stages.evaluation.accuracy import Accuracy

Counts = dict[str, Accuracy]


def counted_once(decides: Any, count: Callable[[], Counts]) -> Counts:
    """Return ``count()``, or what it returned before for the same ``decides``: all that the counts hang on.

    Kept are exact counts over held-out rows: only for records that are declared public.
    """
    kept = remembered(
        "zero-shot",
        decides,
        lambda: {kind: [each.correct, each.rows] for kind, each in count().items()},
    )
    return {kind: Accuracy(correct, rows) for kind, (correct, rows) in kept.items()}
