"""Adapters: what learns is what was counted, and the start is the frozen model."""

import pytest
import torch

from models import ALL, load_float64, rows, trainable
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import collate
from stages.trainable.adapters import attach, count_weights, load_adapter, save_adapter
from stages.vlm.encoder import encode_set
from stages.vlm.family import family_of, load, outline


@pytest.mark.parametrize("kind", ["lora", "ffa_lora", "side"])
def test_the_weights_that_learn_are_as_many_as_the_plan_counted(tiny_llava, kind):
    family = family_of(tiny_llava)
    model = attach(load(tiny_llava).model, trainable(kind=kind), family, seed=1)
    counted = count_weights(outline(tiny_llava), trainable(kind=kind), family)
    assert TrainableLayers.of(model).flat().numel() == counted > 0


@pytest.mark.parametrize("kind", ["lora", "ffa_lora", "side"])
def test_the_start_is_the_frozen_model_and_a_stored_adapter_comes_back(tiny_llava, tmp_path, kind):
    loaded = load_float64(tiny_llava)
    batch = collate(encode_set(loaded, rows(2), ALL), [0, 1])
    before = loaded.family.row_losses(loaded.model, batch)
    model = attach(loaded.model, trainable(kind=kind), loaded.family, seed=1).double()
    assert torch.equal(loaded.family.row_losses(model, batch), before)
    layers = TrainableLayers.of(model)
    layers.assign(torch.randn(layers.flat().shape, generator=torch.Generator().manual_seed(0)).double())
    after = loaded.family.row_losses(model, batch)
    assert not torch.allclose(after, before)
    save_adapter(model, tmp_path, base=str(tiny_llava), revision=None)
    again = load_float64(tiny_llava)
    restored = load_adapter(again.model, tmp_path, again.family).double()
    assert torch.allclose(again.family.row_losses(restored, batch), after, atol=1e-12)
