"""Zeroth order: slopes against a slow reference, what one unit can move, weights and memory untouched."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from choices import optim, planned, pruning
from learners import learner_of
from scipy import stats

from models import PRUNED, rows
from stages.core.ranks import ALONE
from stages.privacy.clipping import ClippedSum, clip_sum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.directions import Directions
from stages.privacy.noise import NoisySum, add_noise
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.stream import RunKey, Streams
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum
from stages.training.intents import Intents
from stages.training.learner import Learner
from stages.training.loop import Choices, train
from stages.training.preflight import require_alone
from stages.training.run_folder import RunFolder
from stages.training.zeroth_order import along, clipped_slope_sum, unit_slopes

DIRECTIONS = Directions(count=3, perturbation=1e-3, seed=5)
STREAMS = Streams(RunKey(bytes(32)), "f", "finetune")


@pytest.fixture
def learner(tiny_llava):
    return learner_of(tiny_llava, rows(4, rows_per_unit=2), PRUNED)


def drawn(learner, step, direction):
    """Return one direction as a flat vector, in float64."""
    named = learner.trainable.parameters()
    parts = [DIRECTIONS.part(step, direction, name, weight.shape).flatten() for name, weight in named.items()]
    return torch.cat(parts).double()


@torch.no_grad()
def slow_slopes(learner, unit, step):
    """Return a unit's slopes, its rows one at a time, at weights that are set from outside."""
    before_P = learner.trainable.flat()
    found = []
    for direction in range(DIRECTIONS.count):
        mean = []
        for sign in (1, -1):
            learner.trainable.assign(
                before_P + sign * DIRECTIONS.perturbation * drawn(learner, step, direction)
            )
            mean.append(sum(float(learner.losses([row])[0]) for row in unit) / len(unit))
        found.append((mean[0] - mean[1]) / (2 * DIRECTIONS.perturbation))
    learner.trainable.assign(before_P)
    return found


def test_slopes_equal_those_of_one_row_at_a_time_and_the_gradient_along_the_direction(learner):
    units = learner.encoded.rows_by_unit()
    slopes_UK = unit_slopes(learner, units, DIRECTIONS, step=2)
    slow_UK = torch.tensor([slow_slopes(learner, unit, 2) for unit in units], dtype=torch.float64)
    assert torch.allclose(slopes_UK, slow_UK, rtol=1e-6, atol=1e-9) and slopes_UK.abs().min() > 1e-4
    weights = list(learner.trainable.parameters().values())
    for place, unit in enumerate(units):
        loss = torch.stack([learner.losses([int(row)])[0] for row in unit]).mean()
        gradient_P = torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])
        along_K = torch.stack([gradient_P @ drawn(learner, 2, index) for index in range(DIRECTIONS.count)])
        assert torch.allclose(slopes_UK[place], along_K, rtol=1e-2, atol=1e-3)
    assert not torch.allclose(unit_slopes(learner, units, DIRECTIONS, step=3), slow_UK, rtol=1e-2), (
        "another step, other directions"
    )


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("rule", ["flat", "automatic"])
def test_one_unit_moves_the_sum_by_no_more_than_the_clip_in_its_norm(learner, norm, rule):
    clipping, units = Clipping(0.01, rule), learner.encoded.rows_by_unit()
    order = 1 if norm == "l1" else 2
    whole_K = clipped_slope_sum(learner, units, DIRECTIONS, clipping, norm, 0).sum_P
    for unit in range(len(units)):
        others = units[:unit] + units[unit + 1 :]
        moved_K = whole_K - clipped_slope_sum(learner, others, DIRECTIONS, clipping, norm, 0).sum_P
        assert 0.5 * clipping.clip < moved_K.norm(p=order) <= clipping.clip * (1 + 1e-6)
    slopes_UK = unit_slopes(learner, units, DIRECTIONS, 0)
    apart_K = torch.cat([clip_sum(slopes_UK[:1, [index]], 0.01).sum_P for index in range(3)])
    assert apart_K.norm(p=order) > 1.5 * clipping.clip, "clipped one by one, K slopes exceed the bound"


def test_a_slope_that_is_not_finite_takes_its_unit_out_and_no_units_give_zeros():
    slopes = torch.tensor([[1.0, math.nan], [0.3, 0.4], [math.inf, 0.0]])
    assert torch.allclose(clip_sum(slopes, 1.0).sum_P, torch.tensor([0.3, 0.4]).double())
    assert torch.equal(clip_sum(torch.zeros(0, 2), 1.0, norm="l1").sum_P, torch.zeros(2).double())


def test_nobody_sampled_gives_as_many_zeros_as_directions(learner):
    found = clipped_slope_sum(learner, [], DIRECTIONS, Clipping(1.0), "l2", 0)
    assert torch.equal(found.sum_P, torch.zeros(3).double())


def test_weights_are_left_bit_for_bit_even_where_a_pass_fails(learner, monkeypatch):
    before_P = learner.trainable.flat()
    units = learner.encoded.rows_by_unit()
    unit_slopes(learner, units, DIRECTIONS, 0)
    assert torch.equal(learner.trainable.flat(), before_P)
    monkeypatch.setattr(Learner, "losses", lambda self, rows: (_ for _ in ()).throw(RuntimeError("full")))
    with pytest.raises(RuntimeError):
        unit_slopes(learner, units, DIRECTIONS, 0)
    assert torch.equal(learner.trainable.flat(), before_P)


@pytest.mark.parametrize("micro_batch", [2, 3, 100])
def test_the_cut_into_micro_batches_changes_nothing_beyond_rounding(learner, micro_batch):
    units, clipping = learner.encoded.rows_by_unit(), Clipping(0.05)
    whole = clipped_slope_sum(learner, units, DIRECTIONS, clipping, "l2", 1).sum_P
    cut = dataclasses.replace(learner, speed=dataclasses.replace(learner.speed, micro_batch=micro_batch))
    found = clipped_slope_sum(cut, units, DIRECTIONS, clipping, "l2", 1).sum_P
    assert torch.allclose(found, whole, rtol=1e-8, atol=1e-10)


def test_the_update_is_the_mean_of_noisy_slope_times_direction(learner):
    noisy = NoisySum(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    slow_P = sum(float(noisy.sum_P[index]) * drawn(learner, 4, index) for index in range(3)) / 3
    assert torch.allclose(along(noisy, DIRECTIONS, learner.trainable, 4).sum_P, slow_P, atol=1e-6)


def test_directions_are_public_and_the_noise_comes_from_the_secret_stream_alone(learner):
    """The reference code seeds one generator for both: whoever knows the direction knows that noise."""
    again = Directions(count=3, perturbation=1e-3, seed=5)
    assert torch.equal(again.part(0, 1, "w", (64,)), DIRECTIONS.part(0, 1, "w", (64,)))
    others = [Directions(count=3, perturbation=1e-3, seed=6).part(0, 1, "w", (64,))]
    others += [DIRECTIONS.part(*place, (64,)) for place in ((1, 1, "w"), (0, 0, "w"), (0, 1, "v"))]
    assert all(abs(float(other @ again.part(0, 1, "w", (64,)))) < 40 for other in others)
    with PreparedNoise(STREAMS, {"slopes": 512}, steps=1) as noise:
        secret = noise.at(0).standard_P
    public = DIRECTIONS.part(0, 0, "slopes", (512,)).double()
    assert abs(float(secret @ public)) < 5 * math.sqrt(512)
    seeded = torch.randn(512, generator=torch.Generator().manual_seed(DIRECTIONS.seed)).double()
    assert abs(float(seeded @ torch.randn(512, generator=torch.Generator().manual_seed(5)).double())) > 400, (
        "noise of the public seed is found at once"
    )
    with PreparedNoise(Streams(RunKey(bytes([1] * 32)), "f", "finetune"), {"slopes": 512}, steps=1) as noise:
        assert abs(float(secret @ noise.at(0).standard_P)) < 5 * math.sqrt(512)


def test_laplace_noise_has_its_distribution_and_scale_and_hides_l1_sums_only():
    with PreparedNoise(STREAMS, {"slopes": 40_000}, steps=1, distribution="laplace") as noise:
        prepared = noise.at(0)
    zeros = torch.zeros(40_000, dtype=torch.float64)
    found = add_noise(ClippedSum(zeros, 0.5, "l1"), 3.0, prepared).sum_P.numpy() / 1.5
    assert stats.kstest(found, "laplace").pvalue > 1e-3
    assert stats.kstest(found / 1.05, "laplace").pvalue < 1e-3, "five per cent too little is noticed"
    gaussian = STREAMS.at("noise", 0, "slopes").gaussian(40_000) * math.sqrt(2)
    assert stats.kstest(gaussian, "laplace").pvalue < 1e-3, "and so is the other distribution"
    with pytest.raises(ValueError, match="laplace noise does not hide a unit bounded in l2"):
        add_noise(ClippedSum(zeros, 0.5), 3.0, prepared)
    with (
        PreparedNoise(STREAMS, {"slopes": 1}, steps=1) as noise,
        pytest.raises(ValueError, match="gaussian noise does not hide a unit bounded in l1"),
    ):
        add_noise(ClippedSum(torch.zeros(1), 0.5, "l1"), 3.0, noise.at(0))


def test_a_step_needs_the_memory_of_inference(tiny_llava):
    learner = learner_of(tiny_llava, rows(6), PRUNED)
    units = learner.encoded.rows_by_unit()
    kept = sum(weight.nbytes for weight in learner.trainable.parameters().values())

    def peak(step):
        step()
        with Allocations(learner.model) as allocations:
            step()
        return allocations.peak

    def inference():
        with torch.no_grad():
            learner.losses([int(unit[0]) for unit in units])

    bare = peak(inference)
    zeroth = peak(lambda: clipped_slope_sum(learner, units, DIRECTIONS, Clipping(1.0), "l2", 0))
    assert zeroth <= 1.02 * bare + 2 * kept, "the weights' values before, and one direction of one weight"
    assert peak(lambda: clipped_gradient_sum(learner, units, Clipping(1.0))) > 1.5 * (bare + 2 * kept)


def test_a_model_whose_rows_see_each_other_is_refused_before_anything_is_trained(learner, tmp_path):
    require_alone(learner, tmp_path / "report.json")
    assert '"verdict": "pass"' in (tmp_path / "report.json").read_text()
    plain = Learner.losses

    def coupled(self, rows):
        losses_R = plain(self, rows)
        return losses_R + 0.1 * losses_R.sum() * (len(rows) > 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "losses", coupled)
        with pytest.raises(ValueError, match="this model's losses couple its rows"):
            require_alone(learner, None)


@pytest.mark.parametrize(("count", "perturbation"), [(0, 1e-3), (1, 0.0), (1, math.inf)])
def test_directions_that_show_nothing_are_refused(count, perturbation):
    with pytest.raises(ValueError, match=r"estimator\.zeroth_order\."):
        Directions(count=count, perturbation=perturbation, seed=0)


def test_two_processes_see_what_one_sees(learner):
    """Each takes its share; the sum over both is that of one process alone."""

    @dataclasses.dataclass(frozen=True)
    class Half(type(ALONE)):
        def share(self, items):
            return list(items)[self.rank :: 2]

        def total(self, value):
            return value

    units, clipping = learner.encoded.rows_by_unit(), Clipping(0.05)
    whole = clipped_slope_sum(learner, units, DIRECTIONS, clipping, "l2", 0).sum_P
    halves = [
        clipped_slope_sum(
            dataclasses.replace(learner, ranks=Half(rank, 1)), units, DIRECTIONS, clipping, "l2", 0
        ).sum_P
        for rank in range(2)
    ]
    assert torch.allclose(sum(halves), whole, atol=1e-12)
    assert not np.allclose(halves[0], whole)


class Killed(Exception):
    """Stands for a process that ends between two steps."""


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tiny_llava, tmp_path, monkeypatch, noise):
    plan = planned("zeroth_order", steps=5, clip=0.1, directions=DIRECTIONS, noise=noise)
    choices = Choices(optim("adam"), pruning("block", 0.5), 0)

    def run(name):
        learner = learner_of(tiny_llava, rows(4, rows_per_unit=2), PRUNED)
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir(exist_ok=True)
        intents = Intents(folder.intents, {"plan": plan.to_json()})
        return train(plan, choices, learner, STREAMS, intents, folder, checkpoint_every=1)

    whole_P, record = run("whole"), Intents.record

    def dying(self, step, mechanism):
        record(self, step, mechanism)
        if step == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Intents, "record", dying)
        with pytest.raises(Killed):
            run("killed")
    assert torch.equal(run("killed"), whole_P)
    begun = Intents(tmp_path / "killed" / "intents.jsonl", {"plan": plan.to_json()}).begun()
    assert [step.attempts for step in begun] == [1, 1, 1, 2, 1]
    assert begun[0].mechanism["directions"] == {"count": 3, "perturbation": 1e-3, "seed": 5}
    assert begun[0].mechanism["noise"] == noise
