"""Exact-answer accuracy by kind of question."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from stages.core.progress import progress
from stages.records.encoded import EncodedSet, collate


@dataclass(frozen=True)
class Accuracy:
    """Rows answered exactly, end mark included, by greedy decoding."""

    correct: int
    rows: int

    def to_json(self) -> dict[str, Any]:
        """Return counts, accuracy and its 95 % interval (Wilson 1927)."""
        low, high = wilson_interval(self.correct, self.rows)
        accuracy = self.correct / self.rows if self.rows else None
        return {"correct": self.correct, "rows": self.rows, "accuracy": accuracy, "low": low, "high": high}


def wilson_interval(correct: int, rows: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion; no rows give (0, 1).

    >>> low, high = wilson_interval(50, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    if rows == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    centre = (correct + z * z / 2) / (rows + z * z)
    half = z / (rows + z * z) * math.sqrt(correct * (rows - correct) / rows + z * z / 4)
    return centre - half, centre + half


def accuracy_by_kind(
    label: str, model: torch.nn.Module, family: Any, encoded: EncodedSet, micro_batch: int
) -> dict[str, Accuracy]:
    """Answer every row and count by kind; ``all`` sums over kinds."""
    device = next(model.parameters()).device
    correct = {kind: 0 for kind in encoded.kinds}
    total = {kind: 0 for kind in encoded.kinds}
    with progress(label, len(encoded.rows)) as advance:
        for start in range(0, len(encoded.rows), micro_batch):
            rows = range(start, min(start + micro_batch, len(encoded.rows)))
            answered = family.rows_answered(model, collate(encoded, rows).to(device)).tolist()
            for row, is_right in zip(rows, answered, strict=True):
                kind = encoded.kinds[encoded.rows[row].kind]
                total[kind] += 1
                correct[kind] += bool(is_right)
            advance(rows.stop)
    found = {kind: Accuracy(correct[kind], total[kind]) for kind in encoded.kinds}
    return {**found, "all": Accuracy(sum(correct.values()), sum(total.values()))}
