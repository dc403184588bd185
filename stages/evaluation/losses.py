"""The loss of every row, by which attacks tell what a model was trained on."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.progress import progress
from stages.records.encoded import EncodedSet, collate


def fall_by_unit(
    before_R: NDArray[np.float64], after_R: NDArray[np.float64], encoded: EncodedSet
) -> NDArray[np.float64]:
    """Return by how much training lowered each unit's mean loss, units in the order of the set, shape (U,).

    Edge cases: a fall that is no finite number is -inf: what has a loss without bound was not learned.
    """
    fall_U = np.array([(before_R - after_R)[rows].mean() for rows in encoded.rows_by_unit()])
    return np.where(np.isfinite(fall_U), fall_U, -np.inf)


@torch.no_grad()
def losses_of_rows(
    label: str, model: torch.nn.Module, family: Any, encoded: EncodedSet, micro_batch: int
) -> NDArray[np.float64]:
    """Return each row's mean cross-entropy over its learned tokens in nats, shape (R,)."""
    device = next(model.parameters()).device
    found = [np.zeros(0)]
    with progress(label, len(encoded.rows)) as advance:
        for start in range(0, len(encoded.rows), micro_batch):
            rows = range(start, min(start + micro_batch, len(encoded.rows)))
            found.append(family.row_losses(model, collate(encoded, rows).to(device)).double().cpu().numpy())
            advance(rows.stop)
    return np.concatenate(found)
