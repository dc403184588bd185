"""Rehearsals on public records: noise as large beside a small batch as in the real run, and real training."""

from dataclasses import replace
from pathlib import Path

import pytest

from models import PRUNED, rows, speed
from stages.core.params import read_params
from stages.training.rehearsal import Rehearsal
from stages.vlm.encoder import encode_set
from stages.vlm.family import load

PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def rehearsal(tiny_llava: Path) -> Rehearsal:
    """Two steps of the default run on a tiny model."""
    found = Rehearsal.of(read_params(PARAMS))
    return replace(
        found,
        backbone=tiny_llava,
        sampling=replace(found.sampling, steps=2, rate=0.5),
        trainable=replace(found.trainable, rank=2, targets=("q_proj",)),
    )


def test_noise_is_as_large_beside_the_batch_as_in_the_real_run(rehearsal: Rehearsal) -> None:
    real, small = rehearsal.plan(), rehearsal.plan_among(30)
    assert small.sampling.expected_batch == 15.0 and real.noise_multiplier is not None
    assert small.noise_multiplier is not None
    assert small.noise_multiplier / 15.0 == pytest.approx(
        real.noise_multiplier / real.sampling.expected_batch
    )
    assert replace(small, noise_multiplier=0, sampling=real.sampling) == replace(real, noise_multiplier=0)


def test_without_privacy_there_is_no_noise_to_scale(rehearsal: Rehearsal) -> None:
    plain = replace(rehearsal, estimator=replace(rehearsal.estimator, kind="nonprivate"))
    assert plain.plan_among(30).noise_multiplier is None


def test_it_trains_and_answers_held_out_rows(rehearsal: Rehearsal, tiny_llava: Path) -> None:
    loaded = load(tiny_llava)
    train, heldout = (encode_set(loaded, rows(units, 2), PRUNED) for units in (8, 3))
    assert 0.0 <= rehearsal.accuracy(train, heldout, speed()) <= 1.0
    learner = rehearsal.learner(train, speed())
    assert float(learner.trainable.flat().abs().sum()) > 0
