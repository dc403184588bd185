"""Micro-batches keep a step below a memory limit, and the sum is the one that any other cut gives."""

from dataclasses import replace

import numpy as np
import pytest
from choices import optim
from learners import learner_of

from models import ALL, PRUNED, picture, rows
from stages.privacy.accounting import Target
from stages.privacy.clipping_rule import Clipping
from stages.privacy.kept_gradients import longest_ghost
from stages.privacy.planning import plan_for
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling
from stages.records.row import Message, Row
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.memory import GIB, memory_use, within_memory
from stages.training.micro_batches import Bounds
from stages.training.step_memory import StepMemory, unpriced, without_values_of
from stages.training.synthetic_rows import Shape, synthetic_learner
from stages.training.whole_step import whole_step

CLIPPING = Clipping(1.0)
PLAN = plan_for(
    "gradient",
    Target(relation="add_or_remove_one", epsilon=8.0, delta=1e-4),
    Population(name="people", public=True, max_units=100, unit="person"),
    Sampling(steps=2, rate=0.5, expected_batch=10.0),
    clipping=CLIPPING,
    rows_per_unit=2,
)
MECHANISM, ADAM = Mechanism.of(PLAN), optim("adam")


def mixed_rows() -> list[Row]:
    """Rows of one and two turns, with two images, one, or none."""
    question, answer = rows(1)[0].messages
    again = (Message("user", "<image>odd or even ?"), Message("assistant", "odd"))
    long = [
        Row(f"l{unit}", f"l{unit}", "digit", (question, answer, *again), (picture(unit), picture(50 + unit)))
        for unit in range(4)
    ]
    text = [
        Row(f"t{unit}", f"t{unit}", "digit", (Message("user", "odd or even ?"), answer), ())
        for unit in range(4)
    ]
    return [*rows(6, rows_per_unit=2), *long, *text]


def mixed_learner(path, rule, **more) -> Learner:
    return learner_of(path, mixed_rows(), rule, **more)


def peak(learner: Learner) -> int:
    units = learner.encoded.rows_by_unit()
    whole_step(learner, units, MECHANISM, ADAM)
    with Allocations(learner.model) as allocations:
        whole_step(learner, units, MECHANISM, ADAM)
    return allocations.peak


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("rule", [ALL, PRUNED], ids=["all tokens", "pruned"])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_step_stays_below_the_limit_and_gives_the_same_sum(tiny_llava, rule, recompute, share):
    free = mixed_learner(tiny_llava, rule, recompute_activations=recompute)
    unlimited = peak(free)
    limit = share * unlimited
    limited = within_memory(
        replace(free, speed=replace(free.speed, memory_limit=limit / GIB, micro_batch=1000)), PLAN, ADAM
    )
    batches = len(list(limited.shared_micro_batches(free.encoded.rows_by_unit())))
    assert peak(limited) <= limit < unlimited, "without a limit the same step needs more"
    assert 1 < batches < len(free.encoded.rows_by_unit()), "not one unit at a time either"
    units = free.encoded.rows_by_unit()
    whole = clipped_gradient_sum(free, units, CLIPPING).sum_P
    cut = clipped_gradient_sum(limited, units, CLIPPING).sum_P
    assert (whole - cut).norm() <= 1e-6 * whole.norm()


def test_what_is_predicted_is_what_is_used(tiny_llava):
    """The largest rows are predicted exactly, any others from above."""
    learner = mixed_learner(tiny_llava, ALL)
    memory = memory_use(learner, PLAN, ADAM)[0]
    lengths = [len(row.input_ids) for row in learner.encoded.rows]
    used = peak(replace(learner, bounds=Bounds(1000, 10**9)))
    assert used <= memory.bytes(len(lengths), max(lengths)) < 2.5 * used


def test_what_the_optimizer_keeps_counts_whatever_the_rows(tiny_llava):
    learner = mixed_learner(tiny_llava, PRUNED, rank=16)
    averaging = optim("adam", average=0.5)
    (less, least), (more, most) = (memory_use(learner, PLAN, kind) for kind in (ADAM, averaging))
    weights_P = learner.trainable.flat()
    assert more.fixed - less.fixed == weights_P.nbytes, "the average of the weights"
    assert (more.per_row, more.per_token) == (less.per_row, less.per_token)
    assert min(least, less.fixed) > 3 * weights_P.nbytes + 8 * len(weights_P), "moments, counts and noise"
    assert most > least


def test_noise_counts_while_units_are_looked_at_unless_it_waits_aside_or_there_is_none(tiny_llava):
    learner = mixed_learner(tiny_llava, PRUNED, rank=16)
    here = StepMemory(without_values_of(learner), MECHANISM)
    aside = replace(here, noise_waits_aside=True)
    without = replace(here, mechanism=unpriced("nonprivate", "whole"))
    (held, most), (less, least), (none, _) = (memory.beside(ADAM) for memory in (here, aside, without))
    noise = 8 * len(learner.trainable.flat())
    assert held - less == held - none == most - least == noise


def test_a_limit_that_the_update_alone_exceeds_is_refused(tiny_llava):
    learner = mixed_learner(tiny_llava, PRUNED, rank=16)
    _, updating = memory_use(learner, PLAN, ADAM)
    tight = replace(learner, speed=replace(learner.speed, memory_limit=0.9 * updating / GIB))
    with pytest.raises(ValueError, match="speed.memory_limit is"):
        within_memory(tight, PLAN, ADAM)


@pytest.mark.parametrize("rank", [64, 128])
def test_the_limit_holds_where_a_layer_turns_from_ghost_norms_to_gradients(tiny_llava, rank):
    """Just before the turn a row needs more than a longer one: a line through the ends alone is too low."""
    base = mixed_learner(tiny_llava, PRUNED, rank=rank)
    turns = sorted({longest_ghost(weight) for weight in base.trainable.parameters().values()})
    words = (6, *turns, max(turns) + 1)
    learner = synthetic_learner(base, [Shape(count, 3, 0) for count in words for _ in range(8)])
    memory, updating = memory_use(learner, PLAN, ADAM)
    held, _ = StepMemory(without_values_of(learner), MECHANISM).beside(ADAM)
    for count in words:
        chosen = [row for row in range(len(words) * 8) if len(learner.encoded.rows[row].input_ids) == count]
        units = [np.array([row]) for row in (0, *chosen)]  # the short row brings padding
        free = replace(learner, bounds=Bounds(1000, 10**9))
        whole_step(free, units, MECHANISM, ADAM)
        with Allocations(learner.model) as allocations:
            whole_step(free, units, MECHANISM, ADAM)
        assert allocations.peak <= max(memory.bytes(len(units), count), updating), count
        with Allocations(learner.model) as allocations:
            clipped_gradient_sum(free, units, CLIPPING)
        assert allocations.peak <= memory.bytes(len(units), count) - held, "beside what is held"


def test_people_who_are_not_public_are_not_described_by_a_refusal(tiny_llava):
    learner = mixed_learner(tiny_llava, ALL, memory_limit=1e-4)
    private = replace(PLAN, population=replace(PLAN.population, public=False))
    with pytest.raises(ValueError, match=r"one unit does not fit speed.memory_limit, 0.0001 GiB: raise it"):
        within_memory(learner, private, ADAM)


def test_a_limit_below_one_unit_is_refused_with_what_would_do(tiny_llava):
    learner = mixed_learner(tiny_llava, ALL, memory_limit=1e-4)
    with pytest.raises(ValueError, match="memory_limit is 0.0001 GiB, but one unit of 2 rows can need"):
        within_memory(learner, PLAN, ADAM)


def test_no_limit_changes_nothing(tiny_llava):
    learner = mixed_learner(tiny_llava, PRUNED)
    assert within_memory(learner, PLAN, ADAM) is learner
