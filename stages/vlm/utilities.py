"""What every privacy unit says of pruning rules, before anything is clipped, added up or noised.

Shapes: U units, R rows of one unit, L encoder layers, K rules tried.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.core.progress import Advance, told_in_parts
from stages.records.row import Row
from stages.vlm.fidelity import Sample
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule

Utility = Callable[[Sample], Tensor]
"""Returns what one unit contributes."""


def unit_utilities(
    loaded: Loaded,
    rows: Sequence[Row],
    units: Sequence[NDArray[np.int64]],
    layers: tuple[int, ...],
    utility: Utility,
    size: int,
    micro_batch: int,
    advance: Advance,
) -> Tensor:
    """Return the utility of each unit, shape (U, ``size``) in float64; ``units`` hold indices into ``rows``.

    Guarantee: a unit's row is a function of that unit's own rows, bit for bit, whatever the other units are:
    its rows and images go through the model alone, and the frozen model keeps nothing.
    """
    found_UK = torch.zeros(len(units), size, dtype=torch.float64)
    for index in told_in_parts(len(units), advance):
        sample = Sample.of(loaded, [rows[row] for row in units[index]], layers, micro_batch)
        found_UK[index] = utility(sample)
    return found_UK


def layer_utility(rules: Sequence[Rule], bound: float) -> Utility:
    """Return what gives a unit's mean log-likelihood of its answers under each rule, shape (L,).

    Each row's lies in [-``bound``, 0], so that no row says more than a public constant.
    """

    def utility(sample: Sample) -> Tensor:
        answers = [sample.answers(rule).log_likelihood_R for rule in rules]
        return torch.stack(answers).clamp(min=-bound).mean(dim=1)

    return utility


def budget_utility(every_token: Rule, rules: Sequence[Rule]) -> Utility:
    """Return what gives a unit's accuracy with all tokens, and what each rule loses of it, shape (1 + K,).

    Accuracies lie in [0, 1]. A loss is mostly zero, so most of a unit's norm is its all-token accuracy: one
    clip serves more rules than it would if their accuracies stood here.
    """

    def utility(sample: Sample) -> Tensor:
        full = sample.answers(every_token).is_right_R.mean()
        kept_K = torch.stack([sample.answers(rule).is_right_R.mean() for rule in rules])
        return torch.cat([full[None], full - kept_K])

    return utility
