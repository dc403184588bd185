"""One unit moves the clipped sum by at most clip, whatever it holds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.privacy.clipping import clip_sum, unit_means

AWKWARD = {
    "zero": torch.zeros(5),
    "huge": torch.full((5,), 1e30),
    "tiny": torch.full((5,), 1e-30),
    "nan": torch.tensor([1.0, float("nan"), 0.0, 0.0, 0.0]),
    "infinite": torch.tensor([float("inf"), 1.0, 0.0, 0.0, 0.0]),
    "overflowing norm": torch.full((5,), 3e38),
}


@pytest.mark.parametrize("row", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("units", [0, 1, 7])
@pytest.mark.parametrize("clip", [0.1, 1.0, 10.0])
def test_one_unit_moves_the_sum_by_at_most_clip(row, units, clip):
    others = torch.randn(units, 5, generator=torch.Generator().manual_seed(units))
    with_it = clip_sum(torch.cat([others, row[None]]), clip).sum_P
    without = clip_sum(others, clip).sum_P
    assert with_it.isfinite().all()
    assert float((with_it - without).norm()) <= clip * (1 + 1e-5) + 1e-5


@settings(deadline=None, max_examples=100)
@given(
    data=st.lists(
        st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=3, max_size=3),
        min_size=1,
        max_size=6,
    ),
    clip=st.floats(0.01, 100),
)
def test_any_hostile_unit_moves_the_sum_by_at_most_clip(data, clip):
    rows = torch.tensor(data, dtype=torch.float32).double()
    moved = clip_sum(rows, clip).sum_P - clip_sum(rows[1:], clip).sum_P
    assert float(moved.norm()) <= clip * (1 + 1e-9) + 1e-9


def test_a_unit_of_many_rows_counts_once():
    grads_RP = 100 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    unit_of_row = torch.tensor([0] * 49 + [1])
    moved = clip_sum(unit_means(grads_RP, unit_of_row, 2), 1.0).sum_P - clip_sum(grads_RP[49:], 1.0).sum_P
    assert float(moved.norm()) <= 1 + 1e-5


def test_dividing_by_the_true_batch_size_would_be_noticed():
    """Negative control: the mean over the actual batch moves by more than clip / expected batch."""
    rows = torch.eye(2)[[0]].repeat(4, 1)
    moved = clip_sum(rows, 1.0).sum_P / 4 - clip_sum(rows[1:] * -1, 1.0).sum_P / 3
    assert float(moved.norm()) > 1 / 4


def test_unclipped_rows_would_be_noticed():
    rows = torch.full((1, 4), 10.0)
    assert float(rows.sum(dim=0).norm()) > 1.0 >= float(clip_sum(rows, 1.0).sum_P.norm()) - 1e-6


@pytest.mark.parametrize("clip", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clip_that_bounds_nothing_is_refused(clip):
    with pytest.raises(ValueError, match="clip must be positive and finite"):
        clip_sum(torch.ones(1, 2), clip)
