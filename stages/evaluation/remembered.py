"""Counts of a model that did not change, kept in ``scratch/`` between the runs that ask for them again."""

import hashlib
from collections.abc import Callable
from typing import Any

from stages.core.canonical import canonical_json
from stages.core.files import read_json, write_json
from stages.core.scratch import scratch_folder
from stages.evaluation.accuracy import Accuracy

Counts = dict[str, Accuracy]


def remembered(decides: Any, count: Callable[[], Counts]) -> Counts:
    """Return ``count()``, or what it returned before for the same ``decides``: all that the counts hang on.

    Kept are exact counts over held-out rows: only for records that are declared public.
    """
    digest = hashlib.sha256(canonical_json(decides)).hexdigest()[:32]
    file = scratch_folder("evaluate", "zero-shot") / f"{digest}.json"
    if file.exists():
        kept = read_json(file)
        return {kind: Accuracy(correct, rows) for kind, (correct, rows) in kept.items()}
    found = count()
    write_json(file, {kind: [each.correct, each.rows] for kind, each in found.items()})
    return found
