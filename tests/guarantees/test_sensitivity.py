"""One unit moves the clipped sum by at most clip, whatever it holds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stages.privacy.clipping import clip_sum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.segments import Segments
from stages.privacy.trainable_layers import TrainableLayers
from stages.privacy.unit_gradients import Norms, UnitGradients

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


class Hostile(nn.Module):
    """Two linear layers whose per-unit gradients are whatever the input makes them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)

    def contribution(self, x: Tensor, unit_of_row: list[int], clipping: Clipping, norms: Norms) -> Tensor:
        """Return the clipped sum over the units of some rows (R, T, 4), whose losses are unbounded."""
        units = unit_of_row[-1] + 1
        found = UnitGradients.of(
            TrainableLayers.of(self),
            Segments.of(units, row=unit_of_row),
            lambda: (self.second(self.first(x)) ** 2).sum(dim=(1, 2)),
            norms=norms,
        )
        return found.clipped_sum(clipping).sum_P


@pytest.mark.parametrize("norms", ["instantiate", "ghost"])
@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 9),
    scale=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e4, 1e12, 1e18, 1e30, float("inf"), float("nan")]),
    cancelling=st.booleans(),
    clip=st.floats(1e-3, 1e3),
    rule=st.sampled_from(["flat", "automatic"]),
    groups=st.sampled_from(["whole", "layer"]),
    seed=st.integers(0, 1000),
)
def test_a_hostile_unit_moves_the_engines_sum_by_at_most_clip(
    norms, rows, scale, cancelling, clip, rule, groups, seed
):
    model, clipping = Hostile(), Clipping(clip, rule, groups)
    others = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(seed))
    hostile = scale * torch.randn(rows, 2, 4, generator=torch.Generator().manual_seed(seed + 1))
    if cancelling:
        hostile[:, 1] = -hostile[:, 0]
    everyone = torch.cat([others, hostile])
    with_it = model.contribution(everyone, [0, 1, 2] + [3] * rows, clipping, norms)
    without = model.contribution(others, [0, 1, 2], clipping, norms)
    assert with_it.isfinite().all()
    assert float((with_it - without).norm()) <= clip * (1 + 1e-5)


@pytest.mark.parametrize("norms", ["instantiate", "ghost"])
@pytest.mark.parametrize("rule", ["flat", "automatic"])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e6, 1e7, 1e8, 1e10])
def test_tokens_that_cancel_do_not_hide_what_is_left(norms, rule, size):
    """A unit of two huge opposite tokens and a small one: inner products lose the small one to rounding."""
    generator = torch.Generator().manual_seed(0)
    huge, small, direction, other = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    layer = nn.Linear(8, 8, bias=False).double()
    given = torch.stack([size * huge, size * huge, small])[None]
    slopes = torch.stack([direction, -direction, other])[None]
    found = UnitGradients.of(
        TrainableLayers.of(nn.Sequential(layer)),
        Segments.of(1, row=[0]),
        lambda: (layer(given) * slopes).sum(dim=(1, 2)),
        norms=norms,
    )
    moved = float(found.clipped_sum(Clipping(1.0, rule)).sum_P.norm())
    assert moved <= 1 + 1e-9
    assert size > 1e4 or moved > 0.9, "nothing is clipped for nothing"


def test_a_batch_without_hostile_units_is_not_all_zeros():
    """Negative control of the one above."""
    model = Hostile()
    moved = model.contribution(torch.ones(1, 2, 4), [0], Clipping(1.0), "instantiate")
    assert float(moved.norm()) == pytest.approx(1.0)


def test_taking_the_first_dimension_for_the_unit_would_be_noticed():
    """Negative control: a unit of nine rows, each clipped as if it were a unit, moves the sum by more."""
    model, rows = Hostile(), torch.ones(9, 2, 4)
    as_rows = model.contribution(rows, list(range(9)), Clipping(1.0), "instantiate")
    as_unit = model.contribution(rows, [0] * 9, Clipping(1.0), "instantiate")
    assert float(as_rows.norm()) > 8 > 1 + 1e-9 > float(as_unit.norm())


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
