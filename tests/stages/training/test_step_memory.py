"""The bytes of a step that calibrate tells are those that a real step has alive at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import ALL, PRUNED, rows, speed, trainable
from stages.privacy.clipping import Clipping
from stages.records.encoded import EncodedSet
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum
from stages.training.micro_batches import Bounds
from stages.training.step_memory import StepMemory
from stages.vlm.encoder import encode_set
from stages.vlm.family import load
from stages.vlm.loaded import Loaded


@pytest.fixture
def loaded(tiny_llava: Path) -> Loaded:
    return load(tiny_llava)


def memory_of(loaded: Loaded, encoded: EncodedSet, estimator: str) -> StepMemory:
    return StepMemory.of(loaded, trainable(), estimator, "whole", 0, speed(), encoded)


def test_fewer_tokens_need_fewer_bytes_the_same_every_time(loaded: Loaded) -> None:
    whole, pruned = (encode_set(loaded, rows(4), rule) for rule in (ALL, PRUNED))
    memory = memory_of(loaded, whole, "gradient")
    again = replace(memory, _known={})
    assert 0 < memory.bytes(pruned) < memory.bytes(whole)
    assert (again.bytes(pruned), again.bytes(whole)) == (memory.bytes(pruned), memory.bytes(whole))
    half = replace(whole, rows=whole.rows[:2])
    assert memory.bytes(half) < memory.bytes(whole)


def test_they_are_those_of_a_real_step_whatever_speed_says(loaded: Loaded) -> None:
    whole = encode_set(loaded, rows(4), ALL)
    memory = memory_of(loaded, whole, "gradient")
    told = memory.bytes(whole)
    learner = replace(memory.learner, encoded=whole, bounds=Bounds(4, 2**62))
    with Allocations(learner.model) as real:
        clipped_gradient_sum(learner, [np.array([row]) for row in range(4)], Clipping(0.1))
    assert real.peak == told
    with Allocations(learner.model) as cut:
        small = replace(learner, bounds=Bounds(1, 2**62))
        clipped_gradient_sum(small, [np.array([row]) for row in range(4)], Clipping(0.1))
    assert cut.peak < told, "negative control: rows one after the other need less"


def test_without_privacy_no_gradient_is_kept_for_each_row_and_without_gradients_no_activation(
    loaded: Loaded,
) -> None:
    whole = encode_set(loaded, rows(4), ALL)
    plain = memory_of(loaded, whole, "nonprivate")
    private = replace(plain, estimator="gradient", _known={}).bytes(whole)
    slopes = replace(plain, estimator="zeroth_order", _known={}).bytes(whole)
    assert 0 < plain.bytes(whole) < private
    assert 0 < 2 * slopes < plain.bytes(whole)
