"""Per-unit gradients are exact: compared with one unit at a time, by plain autograd, in float64."""

import pytest
import torch
from torch import Tensor, nn

from models import ALL, PRUNED, load_float64, rows
from stages.privacy.clipping import clip_sum, unit_means
from stages.privacy.gradients import TrainableLayers, row_gradients
from stages.trainable.lora import Trainable, attach
from stages.training.estimators import Learner, clipped_gradient_sum, plain_gradient_sum
from stages.vlm.encoder import encode_set

TARGETS = ("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj")


def make_learner(path, rule, *, units, rows_per_unit=1, images_per_row=1, micro_batch=100):
    loaded = load_float64(path)
    encoded = encode_set(loaded, rows(units, rows_per_unit, images_per_row), rule)
    section = Trainable(kind="lora", rank=2, alpha=4.0, targets=TARGETS)
    model = attach(loaded.model, section, loaded.family.LANGUAGE_MODEL, seed=1).double()
    layers = TrainableLayers.of(model)
    generator = torch.Generator().manual_seed(3)
    layers.assign(0.3 * torch.randn(layers.flat().shape, generator=generator, dtype=torch.float64))
    return Learner(model, loaded.family, layers, encoded, micro_batch, "cpu")


def one_unit_gradient(learner: Learner, unit_rows) -> Tensor:
    """The slow reference: every row alone through the model, autograd, mean over the unit's rows."""
    weights = list(learner.trainable.parameters().values())
    total = torch.zeros_like(learner.trainable.flat())
    for row in unit_rows:
        gradient = torch.autograd.grad(learner.losses([int(row)])[0], weights)
        total += torch.cat([part.flatten() for part in gradient])
    return total / len(unit_rows)


@pytest.mark.parametrize("rule", [ALL, PRUNED], ids=["all tokens", "pruned"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (4, 1, 1), (3, 3, 1), (3, 2, 2), (2, 1, 4)],
    ids=lambda shape: "units {} rows {} images {}".format(*shape),
)
def test_unit_gradients_equal_one_unit_at_a_time_autograd(tiny_llava, rule, shape):
    units, rows_per_unit, images_per_row = shape
    learner = make_learner(
        tiny_llava, rule, units=units, rows_per_unit=rows_per_unit, images_per_row=images_per_row
    )
    by_unit = learner.encoded.rows_by_unit()
    grads_RP = row_gradients(learner.trainable, lambda: learner.losses(range(len(learner.encoded.rows))))
    unit_of_row = torch.tensor([row.unit for row in learner.encoded.rows])
    found_UP = unit_means(grads_RP, unit_of_row, units)
    expected_UP = torch.stack([one_unit_gradient(learner, unit_rows) for unit_rows in by_unit])
    assert len(found_UP.norm(dim=1)) == units
    assert (found_UP - expected_UP).norm() <= 1e-9 * expected_UP.norm()
    assert float(expected_UP.norm(dim=1).min()) > 0


@pytest.mark.parametrize("micro_batch", [1, 4, 100])
def test_the_clipped_sum_equals_the_slow_reference_however_the_batch_is_cut(tiny_llava, micro_batch):
    learner = make_learner(tiny_llava, PRUNED, units=4, rows_per_unit=3, micro_batch=micro_batch)
    by_unit = learner.encoded.rows_by_unit()
    expected = [one_unit_gradient(learner, unit_rows) for unit_rows in by_unit]
    clip = float(torch.stack(expected).norm(dim=1).median())
    slow_P = sum(gradient * min(1.0, clip / float(gradient.norm())) for gradient in expected)
    found = clipped_gradient_sum(learner, by_unit, clip)
    assert (found.sum_P - slow_P).norm() <= 1e-9 * slow_P.norm()


def test_clipping_each_row_instead_of_each_unit_is_noticed(tiny_llava):
    """Negative control: rows clipped one by one let a unit of three rows move the sum by more than clip."""
    learner = make_learner(tiny_llava, PRUNED, units=1, rows_per_unit=3)
    grads_RP = row_gradients(learner.trainable, lambda: learner.losses(range(3)))
    clip = 1e-3 * float(grads_RP.norm(dim=1).min())
    assert float(clip_sum(grads_RP, clip).sum_P.norm()) > 1.05 * clip
    assert float(clipped_gradient_sum(learner, learner.encoded.rows_by_unit(), clip).sum_P.norm()) <= clip * (
        1 + 1e-9
    )


def test_the_plain_sum_is_the_sum_of_unit_means(tiny_llava):
    learner = make_learner(tiny_llava, ALL, units=3, rows_per_unit=2, micro_batch=4)
    by_unit = learner.encoded.rows_by_unit()
    slow_P = sum(one_unit_gradient(learner, unit_rows) for unit_rows in by_unit)
    assert (plain_gradient_sum(learner, by_unit) - slow_P).norm() <= 1e-9 * slow_P.norm()


def test_no_sampled_unit_gives_zeros(tiny_llava):
    learner = make_learner(tiny_llava, PRUNED, units=1)
    assert not clipped_gradient_sum(learner, [], 1.0).sum_P.any()


def test_a_rows_gradient_does_not_change_with_its_neighbours(tiny_llava):
    learner = make_learner(tiny_llava, PRUNED, units=4)
    together = row_gradients(learner.trainable, lambda: learner.losses([0, 1, 2, 3]))
    apart = row_gradients(learner.trainable, lambda: learner.losses([2]))
    assert (together[2] - apart[0]).norm() <= 1e-9 * apart[0].norm()


class Awkward(nn.Module):
    """A model with one of the faults that make per-unit norms silently wrong elsewhere."""

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
        if self.fault == "flattened":
            return self.second(self.first(x.flatten(0, 1)[None])).view_as(x)
        return self.norm(self.second(self.first(x)))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("norm", "not part of a linear layer"),
        ("shared", "share a weight"),
        ("unused", "took no part"),
        ("twice", "ran twice"),
        ("flattened", "first dimension is not the row"),
    ],
)
def test_a_weight_whose_norm_would_be_wrong_is_refused(fault, sentence):
    model = Awkward(fault)
    x = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match=sentence):
        row_gradients(TrainableLayers.of(model), lambda: model(x).pow(2).sum(dim=(1, 2)))
