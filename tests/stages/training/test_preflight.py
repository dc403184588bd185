"""A private run begins by trying the engine on its own model."""

import json
from dataclasses import replace

import pytest
import torch

from models import PRUNED, load_float64, rows, speed, trainable
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.token_rows import TokenRows
from stages.trainable.adapters import attach
from stages.training.learner import Learner
from stages.training.preflight import require_exact, synthetic_subject
from stages.vlm.attribution import first_axis
from stages.vlm.encoder import encode_set


@pytest.fixture
def learner(tiny_llava) -> Learner:
    loaded = load_float64(tiny_llava)
    encoded = encode_set(loaded, rows(2), PRUNED)
    section = trainable()
    model = attach(loaded.model, section, loaded.family, seed=1).double()
    layers = TrainableLayers.of(model, first_axis(model.config.model_type))
    return Learner(model, loaded.family, layers, encoded, speed())


def test_an_exact_engine_passes_and_leaves_the_weights_as_they_were(learner, tmp_path):
    before = learner.trainable.flat()
    require_exact(learner, tmp_path / "preflight.json")
    assert torch.equal(learner.trainable.flat(), before)
    assert json.loads((tmp_path / "preflight.json").read_text())["verdict"] == "pass"


def test_no_record_of_the_run_is_read(learner):
    hidden = replace(learner, encoded=replace(learner.encoded, rows=TokenRows.of([])))
    assert synthetic_subject(hidden).losses([0, 1, 2, 3]).shape == (4,)


def test_rows_that_see_each_other_are_refused_before_training(learner, tmp_path):
    class Coupled:
        """A family whose loss of a row depends on the other rows of its batch."""

        @staticmethod
        def row_losses(model, batch):
            losses = learner.family.row_losses(model, batch)
            return losses * losses.sum()

    with pytest.raises(ValueError, match="changes by .* with the other units of its batch"):
        require_exact(replace(learner, family=Coupled), tmp_path / "preflight.json")
