"""The start of reversible layers is brought back to the frozen model, by public records alone."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from choices import optim
from reversible_models import stirred

from models import ALL, PRUNED, load_float64, rows, speed, trainable
from stages.core.ranks import ALONE
from stages.core.seed import Seed
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.store import write_rows
from stages.trainable import rebuilding
from stages.trainable.adapters import attach
from stages.trainable.reversible_chain import chain_of
from stages.trainable.settings import Realign, ReversibleSettings
from stages.training.learner import Learner
from stages.training.preflight import require_exact
from stages.training.preparation import learner_for
from stages.training.realignment import realign
from stages.vlm.encoder import encode_set
from stages.vlm.source import Model

REALIGN = Realign(records=6, steps=30, batch=4, learning_rate=0.003)
SECTION = trainable(
    kind="reversible",
    reversible=ReversibleSettings(segment=4, width=8, scale=0.1, centred=True, realign=REALIGN),
)


def test_realigned_layers_are_nearer_the_frozen_model_and_the_same_each_time(tiny_llava):
    found = []
    for _ in range(2):
        loaded = load_float64(tiny_llava)
        encoded = encode_set(loaded, rows(6), ALL)
        model = attach(loaded.model, SECTION, loaded.family, seed=1).double()
        off = realign(loaded, encoded, REALIGN, 5, micro_batch=4)
        assert 0 < off["after"] < 0.8 * off["before"]
        assert chain_of(model).deviation == off
        assert all(weight.grad is None for weight in model.parameters())
        found.append(torch.cat([weight.flatten() for weight in model.parameters() if weight.requires_grad]))
    assert torch.equal(*found)


@pytest.fixture
def stage(tiny_llava, tmp_path):
    write_rows(tmp_path / "public", rows(6), None)
    return SimpleNamespace(
        trainable=SECTION,
        model=Model(path=tiny_llava, hub=None, revision=None, precision="float32"),
        seed=Seed(public=3, start=3),
        rule=lambda: PRUNED,
        optim=optim(),
        backbone=tiny_llava,
        public=tmp_path / "public",
    )


NO_PRIVACY = SimpleNamespace(mechanism="none", estimator="nonprivate")


def started(stage, private) -> torch.Tensor:
    encoded = encode_set(load_float64(stage.backbone), private, ALL)
    return learner_for(stage, NO_PRIVACY, encoded, speed(), ALONE, None).trainable.flat()


def test_the_start_is_the_same_to_the_bit_whatever_the_private_rows_are(stage, tmp_path):
    one = started(stage, rows(2))
    assert torch.equal(started(stage, rows(3, 2)), one)
    write_rows(stage.public, rows(5), None)
    assert not torch.equal(started(stage, rows(2)), one)


def test_recomputing_activations_is_refused_for_there_are_none(stage):
    encoded = encode_set(load_float64(stage.backbone), rows(2), ALL)
    with pytest.raises(ValueError, match="nothing to do"):
        learner_for(stage, NO_PRIVACY, encoded, speed(recompute_activations=True), ALONE, None)


def reversible_learner(tiny_llava) -> Learner:
    loaded = load_float64(tiny_llava)
    encoded = encode_set(loaded, rows(2), ALL)
    model = stirred(attach(loaded.model, SECTION, loaded.family, seed=1).double())
    return Learner(model, loaded.family, TrainableLayers.of(model), encoded, speed())


def test_preflight_measures_the_rebuilt_error_and_refuses_a_large_one(tiny_llava, tmp_path, monkeypatch):
    learner = reversible_learner(tiny_llava)
    require_exact(learner, tmp_path / "preflight.json")
    assert json.loads((tmp_path / "preflight.json").read_text())["max_rebuilt_error"] < 1e-9
    honest = rebuilding._Rerun.across
    monkeypatch.setattr(rebuilding._Rerun, "across", lambda self, pair: honest(self, pair) * 1.01)
    with pytest.raises(ValueError, match="rebuilt with an error of"):
        require_exact(replace(learner), tmp_path / "preflight.json")
    assert json.loads((tmp_path / "preflight.json").read_text())["verdict"] == "fail"
