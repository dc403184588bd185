"""An accumulated support: masked before clipping, noise on it alone, learned from released sums alone."""

import dataclasses
import math

import pytest
import torch
from choices import optim, planned, pruning
from learners import learner_of

from models import PRUNED, rows, trainable
from stages.privacy.clipping import ClippedSum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.noise import NoisySum
from stages.privacy.plan import Plan
from stages.privacy.stream import RunKey, Streams
from stages.training.accumulated import Scores, mask_of
from stages.training.combinations import require_sensible
from stages.training.estimators import clipped_gradient_sum
from stages.training.intents import Intents
from stages.training.loop import Choices, train
from stages.training.mechanism import Mechanism
from stages.training.run_folder import RunFolder

STREAMS = Streams(RunKey(bytes(32)), "f", "finetune")
KEPT = 2


@pytest.fixture
def learner(tiny_llava):
    return learner_of(tiny_llava, rows(4, rows_per_unit=2), PRUNED)


@pytest.fixture
def support(learner):
    """Return two factors of different layers: of one layer one factor is in, of another none."""
    return frozenset(list(learner.trainable.parameters())[:4:3])


def plan_of(steps: int = 6) -> Plan:
    return planned(steps=steps)


def slow_gradients(learner):
    """Return every unit's gradient by plain autograd, one row at a time, (U, P)."""
    weights = list(learner.trainable.parameters().values())
    found = []
    for unit in learner.encoded.rows_by_unit():
        loss = torch.stack([learner.losses([int(row)])[0] for row in unit]).mean()
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]))
    return torch.stack(found)


def masked_then_clipped(gradients_UP, learner, support, clipping):
    """Mask, then clip, with a loop over units and layers."""
    blocks = learner.trainable.slices()
    total_P = torch.zeros_like(gradients_UP[0])
    layers = {name.rpartition(".")[0] for name in support}
    for gradient_P in gradients_UP:
        masked_P = gradient_P.where(mask_of(support, blocks, gradient_P), 0.0)
        if clipping.groups == "whole":
            total_P += masked_P * min(1.0, clipping.clip / float(masked_P.norm()))
            continue
        for layer in layers:
            parts = [where for name, where in blocks.items() if name.startswith(f"{layer}.")]
            norm = math.sqrt(sum(float(masked_P[where].norm()) ** 2 for where in parts))
            for where in parts:
                bound = clipping.clip / math.sqrt(len(layers))
                total_P[where] += masked_P[where] * min(1.0, bound / norm)
    return total_P


@pytest.mark.parametrize("groups", ["whole", "layer"])
@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_the_sum_equals_masking_then_clipping_one_unit_at_a_time(learner, support, groups, clip):
    clipping, units = Clipping(clip, "flat", groups), learner.encoded.rows_by_unit()
    gradients_UP = slow_gradients(learner)
    slow_P = masked_then_clipped(gradients_UP, learner, support, clipping)
    found_P = clipped_gradient_sum(learner, units, clipping, support).sum_P
    assert (found_P - slow_P).norm() < 1e-6 * slow_P.norm()
    whole_P = clipped_gradient_sum(learner, units, clipping).sum_P
    late_P = whole_P.where(mask_of(support, learner.trainable.slices(), whole_P), 0.0)
    assert clip > 1 or late_P.norm() < 0.98 * found_P.norm(), "masked after clipping, units say less"


@pytest.mark.parametrize("groups", ["whole", "layer"])
def test_one_unit_moves_the_masked_sum_by_no_more_than_the_clip(learner, support, groups):
    clipping, units = Clipping(1e-3, "flat", groups), learner.encoded.rows_by_unit()
    whole_P = clipped_gradient_sum(learner, units, clipping, support).sum_P
    for unit in range(len(units)):
        others = units[:unit] + units[unit + 1 :]
        moved_P = whole_P - clipped_gradient_sum(learner, others, clipping, support).sum_P
        assert 0.9 * clipping.clip < moved_P.norm() <= clipping.clip * (1 + 1e-6)


def test_noise_lies_on_the_support_alone_and_is_what_it_would_be_there(learner, support):
    mechanism, blocks = Mechanism.of(plan_of()), learner.trainable.slices()
    total = mechanism.total(learner, [], 0, support)
    is_in_P = mask_of(support, blocks, total.sum_P)
    with mechanism.prepared_noise(learner.trainable, STREAMS, 1) as noise:
        masked_P = mechanism.release(total, noise, 0, is_in_P).sum_P
    with mechanism.prepared_noise(learner.trainable, STREAMS, 1) as noise:
        everywhere_P = mechanism.release(total, noise, 0).sum_P
    assert torch.equal(masked_P, everywhere_P.where(is_in_P, 0.0)) and everywhere_P[~is_in_P].abs().min() > 0
    deviation = mechanism.deviation()
    assert deviation == mechanism.noise_multiplier * mechanism.clip
    assert masked_P[is_in_P].std() == pytest.approx(deviation, rel=0.3)


def test_a_sum_that_says_something_outside_of_its_support_is_not_released(learner, support):
    mechanism = Mechanism.of(plan_of())
    unmasked = mechanism.total(learner, learner.encoded.rows_by_unit(), 0)
    is_in_P = mask_of(support, learner.trainable.slices(), unmasked.sum_P)
    with (
        mechanism.prepared_noise(learner.trainable, STREAMS, 1) as noise,
        pytest.raises(ValueError, match="is not zero outside of it"),
    ):
        mechanism.release(unmasked, noise, 0, is_in_P)


def test_scores_are_what_stands_out_of_the_noise_and_decide_the_support():
    blocks = {"a": slice(0, 2), "b": slice(2, 6), "c": slice(6, 7)}
    noisy = NoisySum(torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.5]))
    scores = Scores.zeros(blocks).after(noisy, 1.0, blocks)
    assert scores.total_B.tolist() == [4.0, 3.0, 5.25]
    scores = scores.after(NoisySum(torch.zeros(7)), 1.0, blocks)
    assert scores.total_B.tolist() == [3.0, 2.0, 4.25]
    assert scores.best(0.34, blocks) == {"c", "a"} and scores.best(0.3, blocks) == {"c"}
    assert Scores.zeros(blocks).best(0.5, blocks) == {"a", "b"}, "equals go by their order"


@pytest.mark.parametrize("raw", [torch.ones(2), ClippedSum(torch.ones(2), 1.0)], ids=["gradient", "clipped"])
def test_scores_cannot_be_made_from_what_is_private(raw):
    blocks = {"a": slice(0, 2)}
    with pytest.raises(TypeError, match="made from noisy sums only"):
        Scores.zeros(blocks).after(raw, 1.0, blocks)


def run(path, learner, plan, checkpoint_every=1):
    folder = RunFolder(path)
    path.mkdir(exist_ok=True)
    choices = Choices(optim("adam"), pruning("accumulated", 0.3, warmup_steps=KEPT), 0)
    intents = Intents(folder.intents, {"plan": plan.to_json()})
    return train(plan, choices, learner, STREAMS, intents, folder, checkpoint_every)


def test_behind_the_warm_up_only_the_support_moves(tiny_llava, tmp_path):
    learner, plan = learner_of(tiny_llava, rows(4), PRUNED), plan_of()
    blocks, weights = learner.trainable.slices(), []

    def seen(self, step, mechanism):
        weights.append(learner.trainable.flat())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Intents, "record", seen)
        weights.append(run(tmp_path / "run", learner, plan))
    moved = [
        {name for name, where in blocks.items() if not torch.equal(before[where], after[where])}
        for before, after in zip(weights[1:], weights[2:], strict=False)
    ]
    assert moved[0] == moved[KEPT - 1] == set(blocks), "the warm-up moves everything"
    assert moved[KEPT] == moved[-1] and len(moved[-1]) == math.ceil(0.3 * len(blocks))


def test_a_run_that_was_killed_behind_its_warm_up_goes_on_to_the_same_bits(tiny_llava, tmp_path, monkeypatch):
    plan, record = plan_of(), Intents.record
    whole_P = run(tmp_path / "whole", learner_of(tiny_llava, rows(4), PRUNED), plan)
    for moment in (1, 4):

        def dying(self, step, mechanism, moment=moment):
            record(self, step, mechanism)
            if step == moment:
                raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(Intents, "record", dying)
            with pytest.raises(RuntimeError):
                run(tmp_path / f"killed {moment}", learner_of(tiny_llava, rows(4), PRUNED), plan)
        again_P = run(tmp_path / f"killed {moment}", learner_of(tiny_llava, rows(4), PRUNED), plan)
        assert torch.equal(again_P, whole_P)


def test_choices_that_make_no_sense_together_are_refused_with_the_way_out():
    plan = plan_of(steps=2)
    with pytest.raises(ValueError, match="leaves no step of sampling.steps 2"):
        require_sensible(plan, trainable(), pruning("accumulated", warmup_steps=2), optim())
    require_sensible(plan, trainable(), pruning("accumulated", warmup_steps=1), optim())
    with pytest.raises(ValueError, match="optim.kind adam_bc takes out the variance"):
        require_sensible(plan, trainable(), pruning(), optim("adam_bc", shrink="spectrum"))
    slopes = dataclasses.replace(plan, estimator="zeroth_order")
    for section, choices, reason in (
        (trainable(kind="reversible"), (pruning(), optim()), "has none: take lora, ffa_lora or side"),
        (trainable(), (pruning("accumulated"), optim()), "has slopes only"),
        (trainable(), (pruning(), optim(shrink="spectrum")), "lies along its directions"),
    ):
        with pytest.raises(ValueError, match=reason):
            require_sensible(slopes, section, *choices)
    require_sensible(slopes, trainable(kind="side"), pruning("block"), optim("adam_bc", average=0.9))
