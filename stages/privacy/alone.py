"""Check that what a model says of a row is a function of that row, before any private record is touched.

All that zeroth order needs of a model: its losses, and nothing of its gradients.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.privacy.preflight import TOLERANCE, Report, Subject, structural_faults


@torch.no_grad()
def loss_preflight(subject: Subject) -> Report:
    """Compare the losses of rows that go through the model together with those of rows that go alone.

    Guarantee: the weights are left as they were.
    """
    units = len(subject.rows_of_unit)
    faults = list(structural_faults(subject.model))
    precision = next(subject.model.parameters()).dtype
    if precision not in TOLERANCE:
        faults.append(f"{precision} is no precision in which losses were ever compared")
    if faults:
        return Report(units, None, None, None, tuple(faults))
    rows = [row for unit in subject.rows_of_unit for row in unit]
    together_R = _losses(subject, rows)
    alone_R = torch.cat([_losses(subject, [row]) for row in rows])
    if not bool(together_R.isfinite().all()) or not bool(alone_R.isfinite().all()):
        return Report(units, None, None, None, ("a row's loss is not finite",))
    drift = float(((together_R - alone_R).abs() / alone_R.abs()).max())
    reasons = []
    if not drift <= TOLERANCE[precision]:
        reasons.append(f"a row's loss changes by {drift:.2g} with the other rows of its batch")
    return Report(units, None, None, drift, tuple(reasons))


def _losses(subject: Subject, rows: Sequence[int]) -> Tensor:
    losses_R = subject.losses(rows).double().cpu()
    if losses_R.shape != (len(rows),):
        raise ValueError("the model's losses are not one a row")
    return losses_R
