"""A step executes what it says, and half a mechanism is none."""

import dataclasses

import numpy as np
import pytest
import torch

from models import PRUNED, load_float64, rows, speed, trainable
from stages.privacy.accounting import Target
from stages.privacy.clipping import ClippedSum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.planning import plan_for
from stages.privacy.population import Population
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.sampling import Sampling
from stages.privacy.stream import RunKey, Streams
from stages.privacy.trainable_layers import TrainableLayers
from stages.trainable.adapters import attach
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.vlm.attribution import first_axis
from stages.vlm.encoder import encode_set

PEOPLE = Population(name="people", public=True, max_units=100, unit="person")
TARGET = Target(relation="add_or_remove_one", epsilon=8.0, delta=1e-4)
SAMPLING = Sampling(steps=2, rate=0.5, expected_batch=10.0)


def plan_of(kind):
    return plan_for(kind, TARGET, PEOPLE, SAMPLING, clipping=Clipping(1.0), rows_per_unit=3)


@pytest.mark.parametrize("kind", ["gradient", "nonprivate"])
def test_a_mechanism_says_all_that_it_does(kind):
    plan = plan_of(kind)
    assert Mechanism.of(plan).to_json() == {
        "estimator": kind,
        "directions": None,
        "noise": None if kind == "nonprivate" else "gaussian",
        "sampler": "poisson",
        "rate": 0.5,
        "expected_batch": 10.0,
        "rows_per_unit": 3,
        "clip": plan.clip,
        "clip_rule": plan.clip_rule,
        "clip_groups": plan.clip_groups,
        "noise_multiplier": plan.noise_multiplier,
    }


@pytest.mark.parametrize("missing", ["clip", "clip_rule", "clip_groups", "noise", "noise_multiplier"])
def test_clipping_without_noise_and_noise_without_clipping_are_refused(missing):
    with pytest.raises(ValueError, match="both or neither"):
        dataclasses.replace(Mechanism.of(plan_of("gradient")), **{missing: None})


@pytest.mark.parametrize(("kind", "other"), [("gradient", "none"), ("nonprivate", "gaussian")])
def test_a_plan_that_contradicts_itself_is_refused(kind, other):
    with pytest.raises(ValueError, match="does not go with"):
        Mechanism.of(dataclasses.replace(plan_of(kind), mechanism=other))


def test_a_step_that_draws_nobody_still_adds_its_noise(tiny_llava):
    loaded = load_float64(tiny_llava)
    section = trainable(targets=("q_proj",))
    model = attach(loaded.model, section, loaded.family, seed=1)
    layers = TrainableLayers.of(model, first_axis(model.config.model_type))
    learner = Learner(model, loaded.family, layers, encode_set(loaded, rows(1), PRUNED), speed())
    plan, streams = plan_of("gradient"), Streams(RunKey(bytes(32)), "f", "finetune")
    mechanism = Mechanism.of(plan)
    sizes = {name: weight.numel() for name, weight in layers.parameters().items()}
    with PreparedNoise(streams, sizes, steps=1) as noise:
        noise_P = mechanism.release(mechanism.total(learner, [], 0), noise, 0).sum_P
    drawn = [streams.at("noise", 0, name).gaussian(size) for name, size in sizes.items()]
    expected = plan.noise_multiplier * np.concatenate(drawn)
    assert np.array_equal(noise_P.numpy(), expected) and expected.std() > 0


def test_a_sum_that_was_not_clipped_gets_no_noise_and_one_that_was_no_release_without():
    clipped, plain = ClippedSum(torch.zeros(1), 1.0), torch.zeros(1)
    with PreparedNoise(Streams(RunKey(bytes(32)), "f", "finetune"), {"w": 1}, steps=1) as noise:
        with pytest.raises(ValueError, match="only in a sum that was clipped"):
            Mechanism.of(plan_of("gradient")).release(plain, noise, 0)
        with pytest.raises(ValueError, match="released with noise only"):
            Mechanism.of(plan_of("nonprivate")).release(clipped, noise, 0)
