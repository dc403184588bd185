"""The bytes of a step that are told are those that a real step has alive at once, byte for byte."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from choices import optim
from torch import nn

from benchmarks.tiny_directories import TINY, write_directory
from models import ALL, PRUNED, rows, speed, trainable
from stages.privacy.clipping_rule import Clipping
from stages.records.encoded import EncodedSet
from stages.trainable.adapters import attach
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum
from stages.training.fake_tensors import holds_values
from stages.training.memory_parts import ACTIVATIONS, BACKWARD, LOGITS, STATE, UNITS, Parts
from stages.training.micro_batches import Bounds
from stages.training.step_memory import StepMemory, around, unpriced
from stages.training.synthetic_rows import Shape, synthetic_learner
from stages.training.whole_step import whole_step
from stages.vlm.activations import recompute_activations
from stages.vlm.encoder import encode_set
from stages.vlm.family import load
from stages.vlm.loaded import Loaded

SHAPES = [Shape(8, 3, 4), Shape(20, 5, 4), Shape(6, 2, 0), Shape(30, 4, 16)]
METHODS = {
    "LoRA": ("lora", "gradient", False),
    "FFA-LoRA": ("ffa_lora", "gradient", False),
    "side network": ("side", "gradient", False),
    "reversible": ("reversible", "gradient", False),
    "zeroth order": ("lora", "zeroth_order", False),
    "zeroth order beside a side network": ("side", "zeroth_order", False),
    "non-private": ("lora", "nonprivate", False),
    "activations recomputed": ("lora", "gradient", True),
    "side network, its blocks' activations recomputed": ("side", "gradient", True),
}


@pytest.fixture
def loaded(tiny_llava: Path) -> Loaded:
    return load(tiny_llava)


def memory_of(loaded: Loaded, encoded: EncodedSet, estimator: str, kind: str = "lora") -> StepMemory:
    return StepMemory.of(loaded, trainable(kind=kind), estimator, "whole", 0, speed(), encoded)


def real_parts(memory: StepMemory, model: nn.Module, shapes: Sequence[Shape] = SHAPES) -> Allocations:
    """Count the second whole step of a model with values: what a first one leaves behind is not a step's."""
    learner = around(model, memory.learner)
    learner = replace(synthetic_learner(learner, shapes), bounds=Bounds(len(shapes), 2**62))
    units = [np.array([0, 1]), np.array([2, 3])]
    parts = Parts(int(model.config.get_text_config().vocab_size))
    whole_step(learner, units, memory.mechanism, optim("adam"))
    with Allocations(model, parts) as allocations:
        whole_step(learner, units, memory.mechanism, optim("adam"), parts.look)
    return allocations


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_whole_step_of_every_method_needs_to_the_byte_what_is_told_without_values(
    method: str, precision: str, tiny_llava: Path
) -> None:
    kind, estimator, recompute = METHODS[method]
    loaded = load(tiny_llava, precision=precision)
    memory = memory_of(loaded, encode_set(loaded, rows(2), ALL), estimator, kind)
    real = loaded.model if kind in ("side", "reversible") else memory_model(tiny_llava, precision, kind)
    if recompute:
        recompute_activations(real)
        recompute_activations(memory.learner.model)
    assert holds_values(real) and not holds_values(memory.learner.model)
    told, counted = memory.parts(SHAPES, 2, optim("adam")), real_parts(memory, real)
    assert told == counted.parts_at_peak
    assert sum(told.values()) == counted.peak > 0
    assert set(told) <= {STATE, ACTIVATIONS, LOGITS, BACKWARD, UNITS}


@pytest.mark.parametrize("kind", ["lora", "side"])
def test_so_it_is_where_the_sums_of_the_gradients_are_the_peak(kind: str, tiny_llava: Path) -> None:
    loaded, section = load(tiny_llava), trainable(kind=kind, rank=200)
    encoded, short = encode_set(loaded, rows(1), ALL), [Shape(3, 1, 0)] * 4
    memory = StepMemory.of(loaded, section, "gradient", "whole", 0, speed(), encoded)
    again = load(tiny_llava)
    real = attach(again.model, section, again.family, seed=0)
    told, counted = memory.parts(short, 2, optim("adam")), real_parts(memory, real, short)
    assert told == counted.parts_at_peak
    assert told[UNITS] + told[STATE] > told.get(ACTIVATIONS, 0) + told.get(BACKWARD, 0)


def memory_model(path: Path, precision: str, kind: str) -> nn.Module:
    loaded = load(path, precision=precision)
    return attach(loaded.model, trainable(kind=kind), loaded.family, seed=0)


@pytest.mark.parametrize("name", sorted(TINY))
def test_so_it_is_in_every_family(name: str, tmp_path: Path) -> None:
    loaded = load(write_directory(name, tmp_path / "model"))
    image = loaded.family.slots_per_image(loaded.model) or 16
    family, encoded = loaded.family, encode_set(loaded, rows(1), ALL)
    memory = memory_of(loaded, encoded, "gradient")
    assert family.slot_width(loaded.model) == encoded.features.width
    shapes = [Shape(9, 3, image), Shape(12, 4, image), Shape(7, 2, 0)]
    learner = around(attach(load(tmp_path / "model").model, trainable(), family, seed=0), memory.learner)
    real = synthetic_learner(learner, shapes)
    units = [np.array([row]) for row in range(3)]
    counted = replace(real, bounds=Bounds(3, 2**62))
    unpriced("gradient", "whole").total(counted, units, 0)
    with Allocations(learner.model) as allocations:
        unpriced("gradient", "whole").total(counted, units, 0)
    assert memory.bytes(real.encoded) == allocations.peak


def test_fewer_tokens_need_fewer_bytes_the_same_every_time(loaded: Loaded) -> None:
    whole, pruned = (encode_set(loaded, rows(4), rule) for rule in (ALL, PRUNED))
    memory = memory_of(loaded, whole, "gradient")
    assert 0 < memory.bytes(pruned) < memory.bytes(whole)
    assert memory.bytes(whole) == memory.bytes(whole)
    half = replace(whole, rows=whole.rows[:2])
    assert memory.bytes(half) < memory.bytes(whole)


def test_rows_one_after_the_other_need_less(loaded: Loaded) -> None:
    whole = encode_set(loaded, rows(4), ALL)
    memory = memory_of(loaded, whole, "gradient")
    model = attach(load(Path(loaded.model.config._name_or_path)).model, trainable(), loaded.family, seed=0)
    learner = replace(around(model, memory.learner), encoded=whole)
    found = []
    for at_once in (4, 1):
        cut = replace(learner, bounds=Bounds(at_once, 2**62))
        with Allocations(learner.model) as allocations:
            clipped_gradient_sum(cut, [np.array([row]) for row in range(4)], Clipping(0.1))
        found.append(allocations.peak)
    assert found[0] == memory.bytes(whole) > found[1], "negative control: rows one by one need less"


@pytest.mark.parametrize("kind", ["lora", "side"])
def test_activations_that_are_recomputed_need_less(kind: str, loaded: Loaded) -> None:
    whole = encode_set(loaded, rows(4), ALL)
    memory = memory_of(loaded, whole, "gradient", kind)
    kept = memory.bytes(whole)
    recompute_activations(memory.learner.model)
    assert 0 < memory.bytes(whole) <= kept
    assert kind == "side" or memory.bytes(whole) < 0.8 * kept, "a side network keeps little anyway"


def test_without_privacy_no_gradient_is_kept_for_each_row_and_without_gradients_no_activation(
    loaded: Loaded,
) -> None:
    whole = encode_set(loaded, rows(4), ALL)
    memory = memory_of(loaded, whole, "nonprivate")
    plain, private, slopes = (
        replace(memory, mechanism=unpriced(estimator, "whole")).bytes(whole)
        for estimator in ("nonprivate", "gradient", "zeroth_order")
    )
    assert 0 < 2 * slopes < plain < private


def test_what_was_there_before_does_not_count_and_what_takes_its_place_does() -> None:
    before, model = torch.ones(1000), nn.Linear(1, 1)
    with Allocations(model) as allocations:
        view = before[10:]
        assert (view.shape, allocations.live) == ((990,), 0)
        del view, before
        after = [torch.zeros(1000) for _ in range(3)]
        assert allocations.live == 3 * 4000
        del after
    assert (allocations.live, allocations.peak) == (0, 3 * 4000)
