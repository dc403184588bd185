"""Per-unit gradients are exact: compared with one unit at a time, by plain autograd, in float64."""

import numpy as np
import pytest
import torch
from learners import learner_of
from torch import Tensor, nn

from models import ALL, PRUNED, rows
from stages.privacy.clipping import clip_factors, clip_sum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.segments import Segments
from stages.privacy.trainable_layers import TrainableLayers
from stages.privacy.unit_gradients import UnitGradients
from stages.training.estimators import clipped_gradient_sum, plain_gradient_sum
from stages.training.learner import Learner
from stages.training.micro_batches import Bounds, MemoryUse, MicroBatch, micro_batches

CLOSE = 1e-6
"""Llama's RMSNorm computes in float32 whatever the model's type, so scaling a loss rounds anew."""
TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj")


def make_learner(path, rule, *, units, rows_per_unit=1, images_per_row=1, **more):
    return learner_of(path, rows(units, rows_per_unit, images_per_row), rule, targets=TARGETS, **more)


def one_unit_gradient(learner: Learner, unit_rows) -> Tensor:
    """The slow reference: every row alone through the model, autograd, mean over the unit's rows."""
    weights = list(learner.trainable.parameters().values())
    total = torch.zeros_like(learner.trainable.flat())
    for row in unit_rows:
        gradient = torch.autograd.grad(learner.losses([int(row)])[0], weights)
        total += torch.cat([part.flatten() for part in gradient])
    return total / len(unit_rows)


def gradients_of(learner: Learner, norms="choose") -> UnitGradients:
    """Run the engine on all rows at once."""
    rows_at_once = range(len(learner.encoded.rows))
    unit_of_row = np.array([row.unit for row in learner.encoded.rows])
    segments = learner.segments(MicroBatch(list(rows_at_once), unit_of_row, int(unit_of_row.max()) + 1))
    return UnitGradients.of(learner.trainable, segments, lambda: learner.losses(rows_at_once), norms=norms)


@pytest.mark.parametrize("norms", ["choose", "instantiate", "ghost"])
@pytest.mark.parametrize("rule", [ALL, PRUNED], ids=["all tokens", "pruned"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (4, 1, 1), (3, 3, 1), (3, 2, 2), (2, 1, 4)],
    ids=lambda shape: "units {} rows {} images {}".format(*shape),
)
def test_unit_gradients_equal_one_unit_at_a_time_autograd(tiny_llava, rule, shape, norms):
    units, rows_per_unit, images_per_row = shape
    learner = make_learner(
        tiny_llava, rule, units=units, rows_per_unit=rows_per_unit, images_per_row=images_per_row
    )
    by_unit = learner.encoded.rows_by_unit()
    found = gradients_of(learner, norms)
    expected_UP = torch.stack([one_unit_gradient(learner, unit_rows) for unit_rows in by_unit])
    norms_U = expected_UP.norm(dim=1)
    assert float(norms_U.min()) > 0
    assert found.norms_U().shape == (units,)
    assert (found.norms_U() - norms_U).norm() <= CLOSE * norms_U.norm()
    assert (found.stacked() - expected_UP).norm() <= CLOSE * expected_UP.norm()


@pytest.mark.parametrize("clip_rule", ["flat", "automatic"])
@pytest.mark.parametrize("groups", ["whole", "layer"])
@pytest.mark.parametrize(
    "cut", [{"micro_batch": 1}, {"micro_batch": 4}, {"micro_batch_tokens": 90}, {}], ids=str
)
def test_the_clipped_sum_equals_the_slow_reference_however_the_batch_is_cut(
    tiny_llava, cut, groups, clip_rule
):
    learner = make_learner(tiny_llava, PRUNED, units=4, rows_per_unit=3, **cut)
    by_unit = learner.encoded.rows_by_unit()
    expected_UP = torch.stack([one_unit_gradient(learner, unit_rows) for unit_rows in by_unit])
    clip = float(expected_UP.norm(dim=1).median())
    slow_P = torch.zeros(expected_UP.shape[1], dtype=torch.float64)
    blocks = blocks_of(learner.trainable) if groups == "layer" else [slice(None)]
    for gradient_P in expected_UP:
        for block in blocks:
            norm, bound = float(gradient_P[block].norm()), clip / len(blocks) ** 0.5
            factor = min(1.0, bound / norm) if clip_rule == "flat" else bound / (norm + 0.01)
            slow_P[block] += factor * gradient_P[block]
    found = clipped_gradient_sum(learner, by_unit, Clipping(clip, clip_rule, groups))
    assert (found.sum_P - slow_P).norm() <= CLOSE * slow_P.norm()


def blocks_of(trainable: TrainableLayers) -> list[slice]:
    """Return where each layer lies in a flat vector."""
    found: dict[str, slice] = {}
    for name, where in trainable.slices().items():
        layer = name.rpartition(".")[0]
        found[layer] = slice(found[layer].start if layer in found else where.start, where.stop)
    return list(found.values())


def test_recomputed_activations_give_the_same_gradients(tiny_llava):
    learner = make_learner(tiny_llava, PRUNED, units=3, rows_per_unit=2)
    again = make_learner(tiny_llava, PRUNED, units=3, rows_per_unit=2, recompute_activations=True)
    runs = []
    for learned in (learner, again):
        for name, layer in learned.model.named_modules():
            if name.endswith("mlp"):
                layer.register_forward_pre_hook(lambda *given: runs.append(given))
    expected_UP = gradients_of(learner).stacked()
    once = len(runs)
    found_UP = gradients_of(again).stacked()
    assert len(runs) == 3 * once - 1, "every layer but the last ran a second time, in the backward pass"
    assert (found_UP - expected_UP).norm() <= 1e-12 * expected_UP.norm()


def test_ffa_lora_trains_factor_b_alone_and_is_exact(tiny_llava):
    learner = make_learner(tiny_llava, PRUNED, units=3, rows_per_unit=2, kind="ffa_lora")
    assert all(".lora_B." in name for name in learner.trainable.parameters())
    by_unit = learner.encoded.rows_by_unit()
    expected_UP = torch.stack([one_unit_gradient(learner, unit_rows) for unit_rows in by_unit])
    assert (gradients_of(learner).stacked() - expected_UP).norm() <= CLOSE * expected_UP.norm()


@pytest.mark.parametrize("most_rows", [1, 3, 7, 100])
@pytest.mark.parametrize("most_tokens", [1, 30, 1000])
@pytest.mark.parametrize("memory", [None, MemoryUse(fixed=100.0, per_row=3.0, per_token=2.0)])
def test_micro_batches_hold_every_unit_whole_and_keep_their_bounds(most_rows, most_tokens, memory):
    dice = np.random.default_rng(0)
    lengths = dice.integers(1, 12, 40)
    cuts = np.sort(dice.choice(np.arange(1, 40), 14, replace=False))
    units = np.split(np.arange(40), cuts)
    seen = []
    for batch in micro_batches(units, lengths, Bounds(most_rows, most_tokens, memory, memory_limit=160.0)):
        longest = lengths[batch.rows].max()
        padded = len(batch.rows) * longest
        assert batch.units == 1 or (len(batch.rows) <= most_rows and padded <= most_tokens)
        assert batch.units == 1 or memory is None or 100 + 3 * len(batch.rows) + 2 * padded <= 160
        assert batch.unit_of_row.max() + 1 == batch.units
        for unit in range(batch.units):
            seen.append(np.array(batch.rows)[batch.unit_of_row == unit])
    assert all(np.array_equal(found, unit) for found, unit in zip(seen, units, strict=True))


def test_clipping_each_row_instead_of_each_unit_is_noticed(tiny_llava):
    """Negative control: rows clipped one by one let a unit of three rows move the sum by more than clip."""
    learner = make_learner(tiny_llava, PRUNED, units=1, rows_per_unit=3)
    rows_RP = torch.stack([one_unit_gradient(learner, [row]) for row in range(3)])
    clip = 1e-3 * float(rows_RP.norm(dim=1).min())
    assert float(clip_sum(rows_RP, clip).sum_P.norm()) > 1.05 * clip
    found = clipped_gradient_sum(learner, learner.encoded.rows_by_unit(), Clipping(clip))
    assert float(found.sum_P.norm()) <= clip * (1 + 1e-9)


def test_the_plain_sum_is_the_sum_of_unit_means(tiny_llava):
    learner = make_learner(tiny_llava, ALL, units=3, rows_per_unit=2, micro_batch=4)
    by_unit = learner.encoded.rows_by_unit()
    slow_P = sum(one_unit_gradient(learner, unit_rows) for unit_rows in by_unit)
    assert (plain_gradient_sum(learner, by_unit) - slow_P).norm() <= CLOSE * slow_P.norm()


def test_no_sampled_unit_gives_zeros(tiny_llava):
    learner = make_learner(tiny_llava, PRUNED, units=1)
    assert not clipped_gradient_sum(learner, [], Clipping(1.0)).sum_P.any()


def test_a_units_gradient_does_not_change_with_its_neighbours(tiny_llava):
    learner = make_learner(tiny_llava, PRUNED, units=4)
    together = gradients_of(learner).stacked()
    segments = Segments.of(1, row=[0], image=[0])
    apart = UnitGradients.of(learner.trainable, segments, lambda: learner.losses([2])).stacked()
    assert (together[2] - apart[0]).norm() <= 1e-9 * apart[0].norm()


class Awkward(nn.Module):
    """A small model with one of the peculiarities that make per-unit norms silently wrong elsewhere."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.norm.requires_grad_(fault == "norm")
        if fault == "shared":
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "unused":
            return self.norm(self.first(x))
        if self.fault == "twice":
            return self.second(self.first(self.first(x)))
        if self.fault == "bypassed":
            return nn.functional.linear(self.second(self.first(x)), self.first.weight)
        if self.fault == "flattened":
            return self.second(self.first(x.flatten(0, 1)[None])).view_as(x)
        return self.norm(self.second(self.first(x)))

    def losses(self, x: Tensor) -> Tensor:
        return (self(x) ** 3).sum(dim=(1, 2))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("norm", "not part of a linear layer"),
        ("shared", "share a weight"),
        ("unused", "took no part"),
        ("bypassed", "outside its layer's forward"),
        ("flattened", "its first dimension is something else"),
    ],
)
def test_a_weight_whose_norm_would_be_wrong_is_refused(fault, sentence):
    model = Awkward(fault)
    x = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match=sentence):
        UnitGradients.of(TrainableLayers.of(model), Segments.of(2, row=[0, 1]), lambda: model.losses(x))
    assert all(weight.grad is None for weight in model.parameters())
    assert "forward" not in vars(model.first), "the layer is as it was"


@pytest.mark.parametrize("norms", ["instantiate", "ghost"])
def test_a_layer_that_runs_twice_is_exact_with_biases_and_uneven_units(norms):
    torch.manual_seed(0)
    model = Awkward("twice").double()
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    trainable = TrainableLayers.of(model)
    unit_of_row = [0, 1, 1, 1, 2]
    found = UnitGradients.of(trainable, Segments.of(3, row=unit_of_row), lambda: model.losses(x), norms=norms)
    weights = list(trainable.parameters().values())
    for unit in range(3):
        rows_of_unit = [row for row, owner in enumerate(unit_of_row) if owner == unit]
        mean = model.losses(x[rows_of_unit]).mean()
        slow_P = torch.cat([part.flatten() for part in torch.autograd.grad(mean, weights)])
        assert (found.stacked()[unit] - slow_P).norm() <= 1e-12 * slow_P.norm()
        assert abs(found.norms_U()[unit] - slow_P.norm()) <= 1e-12 * slow_P.norm()


def test_losses_that_are_not_one_a_row_are_refused():
    model = Awkward("none")
    x = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match="not one a row"):
        UnitGradients.of(
            TrainableLayers.of(model), Segments.of(2, row=[0, 1]), lambda: model.losses(x).mean()[None]
        )


@pytest.mark.parametrize(
    ("units", "maps", "sentence"),
    [
        (2, {"row": [0, 0]}, "must have a row"),
        (1, {"image": [0]}, "must have a row"),
        (2, {"row": [1, 0]}, "must lie together"),
        (2, {"row": [0, 1], "image": [0, 2]}, "of which there are 2"),
    ],
)
def test_a_map_that_attributes_nothing_or_too_much_is_refused(units, maps, sentence):
    with pytest.raises(ValueError, match=sentence):
        Segments.of(units, **maps)


@pytest.mark.parametrize("groups", ["whole", "layer"])
@pytest.mark.parametrize("clip_rule", ["flat", "automatic"])
def test_a_unit_that_is_not_finite_in_one_layer_adds_nothing_in_any(groups, clip_rule):
    squared = {"a": torch.tensor([4.0, float("nan"), 9.0]), "b": torch.tensor([0.0, 1.0, float("inf")])}
    factors = clip_factors(squared, Clipping(1.0, clip_rule, groups))
    for factor_U in factors.values():
        assert factor_U[0] > 0 and factor_U[1] == factor_U[2] == 0
