"""Reversible layers: rebuilt to the bit, memory by segments, stored and read back, and usable as they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reversible_models import DeepFamily, deep_llama, stirred
from safetensors.torch import load_file, save_file

from models import ALL, load_float64, rows, trainable
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import collate
from stages.trainable import reversible_chain, reversible_layers
from stages.trainable.adapters import attach, count_weights, load_adapter, save_adapter
from stages.trainable.reversible_chain import chain_of, measured
from stages.trainable.settings import Realign, ReversibleSettings
from stages.training.allocations import Allocations
from stages.training.preflight import REBUILT
from stages.vlm.encoder import encode_set
from stages.vlm.family import family_of, load, outline

IDS = torch.arange(2 * 24).view(2, 24) % 97


def settings(
    segment: int = 4, *, width: int = 8, scale: float = 0.1, centred: bool = True
) -> ReversibleSettings:
    again = Realign(records=1, steps=0, batch=1, learning_rate=0.001)
    return ReversibleSettings(segment=segment, width=width, scale=scale, centred=centred, realign=again)


def section(**changed):
    return trainable(kind="reversible", reversible=settings(**changed))


def deep(layers: int, *, dtype=torch.float32, **changed):
    return stirred(attach(deep_llama(layers, dtype=dtype), section(**changed), DeepFamily, seed=1))


def errors(model) -> list[float]:
    with measured(chain_of(model)) as found, torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("centred", [True, False], ids=["centred", "published"])
def test_32_layers_are_rebuilt_within_the_tolerance_in_every_segment(dtype, centred):
    found = errors(deep(32, dtype=dtype, centred=centred))
    assert len(found) == 8
    assert 0 <= max(found) <= REBUILT


def test_streams_in_the_precision_of_the_model_are_not_rebuilt(monkeypatch):
    monkeypatch.setattr(reversible_chain, "WIDE", torch.float32)
    assert max(errors(deep(32))) > REBUILT


def test_one_segment_of_32_layers_is_not_rebuilt():
    assert max(errors(deep(32, segment=32))) > REBUILT


def peak(layers: int, segment: int) -> int:
    model = deep(layers, segment=segment)
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def step() -> None:
        output = model(input_ids=IDS, use_cache=False).last_hidden_state
        torch.autograd.grad(output.square().sum(), weights)

    step()
    with Allocations(model) as allocations:
        step()
    return allocations.peak


def test_saved_bytes_grow_with_the_segments_and_not_with_the_layers():
    one_boundary = 2 * IDS.numel() * 256 * 8
    gradients = 2 * 8 * 256 * 4 * 2
    """Of one layer's weights: what is returned, not saved."""
    base = peak(4, 4)
    assert peak(8, 8) - base <= 4 * gradients + 0.1 * one_boundary
    assert peak(8, 4) - base <= 4 * gradients + 1.1 * one_boundary
    assert peak(32, 4) - base <= 28 * gradients + 7.1 * one_boundary
    assert peak(32, 16) - base <= 28 * gradients + 1.1 * one_boundary
    assert peak(32, 1) - base >= 28 * one_boundary  # boundaries are seen where there are many


def test_nothing_stays_alive_after_the_backward_pass():
    model = deep(4)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with Allocations(model) as allocations:
        loss = model(input_ids=IDS, use_cache=False).last_hidden_state.square().sum()
        found = torch.autograd.grad(loss, weights)
        del loss, found
    chain = chain_of(model)
    assert (chain.start, chain.handed_on, chain.steps) == (None, None, [])
    assert allocations.live <= 2**14


def test_a_second_backward_pass_is_refused_for_boundaries_are_let_go_on_the_first():
    model = deep(8, segment=2)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    loss = model(input_ids=IDS, use_cache=False).last_hidden_state.square().sum()
    torch.autograd.grad(loss, weights, retain_graph=True)
    with pytest.raises(RuntimeError, match="run the model again"):
        torch.autograd.grad(loss, weights)


def test_a_cache_where_layers_learn_is_refused_and_without_gradient_answers_the_same():
    model = deep(4)
    with pytest.raises(ValueError, match="use_cache=False"):
        model(input_ids=IDS, use_cache=True)
    with torch.no_grad():
        whole = model(input_ids=IDS, use_cache=False).last_hidden_state
        begun = model(input_ids=IDS[:, :20], use_cache=True)
        rest = model(input_ids=IDS[:, 20:], past_key_values=begun.past_key_values, use_cache=True)
    assert torch.allclose(rest.last_hidden_state, whole[:, 20:], atol=1e-4)
    learning = model(input_ids=IDS, use_cache=False).last_hidden_state
    assert torch.equal(learning.detach(), whole)


def test_generating_with_a_cache_is_reading_everything_again(tiny_llava):
    loaded = load(tiny_llava)
    model = stirred(attach(loaded.model, section(segment=1), loaded.family, seed=1))
    ids = torch.tensor([[5, 6, 7, 8]])
    found = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
    )
    for _ in range(found.shape[1] - ids.shape[1]):
        with torch.no_grad():
            said = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, -1]
        ids = torch.cat([ids, said.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(found, ids)


def test_the_weights_that_learn_are_as_many_as_the_plan_counted(tiny_llava):
    family = family_of(tiny_llava)
    model = attach(load(tiny_llava).model, section(), family, seed=1)
    counted = count_weights(outline(tiny_llava), section(), family)
    assert TrainableLayers.of(model).flat().numel() == counted == 3 * 2 * 8 * 32


def test_stored_adapters_answer_the_same_in_another_process(tiny_llava, tmp_path):
    loaded = load_float64(tiny_llava)
    batch = collate(encode_set(loaded, rows(2), ALL), [0, 1])
    model = stirred(attach(loaded.model, section(), loaded.family, seed=1))
    stored = tmp_path / "adapter"
    save_adapter(model, stored, base=str(tiny_llava), revision=None)
    assert sorted(file.name for file in stored.iterdir()) == [
        "reversible_config.json",
        "reversible_model.safetensors",
    ]
    torch.save((batch, loaded.family.row_losses(model.double(), batch).detach()), tmp_path / "expected.pt")
    code = f"""
import sys, torch
from pathlib import Path
sys.path[:0] = {sys.path!r}
from models import load_float64
from stages.trainable.adapters import load_adapter
loaded = load_float64(Path({str(tiny_llava)!r}))
model = load_adapter(loaded.model, Path({str(stored)!r}), loaded.family).double()
batch, expected = torch.load(Path({str(tmp_path / "expected.pt")!r}), weights_only=False)
assert not any(weight.requires_grad for weight in model.parameters())
assert torch.allclose(loaded.family.row_losses(model, batch), expected, atol=1e-12)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def stored(tiny_llava, tmp_path) -> Path:
    loaded = load(tiny_llava)
    model = attach(loaded.model, section(), loaded.family, seed=1)
    save_adapter(model, tmp_path, base=str(tiny_llava), revision=None)
    return tmp_path


def changed(path: Path, name: str, value) -> None:
    weights = load_file(path / "reversible_model.safetensors")
    weights[name] = value(weights.get(name, torch.zeros(1)))
    save_file(weights, path / "reversible_model.safetensors")


@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (lambda path: changed(path, "layers.0.beside.up.weight", lambda w: w[:3].clone()), "has shape"),
        (lambda path: changed(path, "layers.0.beside.up.weight", lambda w: w * torch.nan), "not finite"),
        (
            lambda path: changed(path, "layers.9.beside.up.weight", lambda w: w),
            "does not fit the configuration beside it",
        ),
        (lambda path: (path / "reversible_model.safetensors").unlink(), "cannot be read"),
        (lambda path: (path / "reversible_model.safetensors").write_bytes(b"x"), "cannot be read"),
        (lambda path: (path / "reversible_config.json").write_text("{"), "not valid JSON"),
        (lambda path: edited(path, scale=7), "is not the settings"),
        (lambda path: edited(path, language_model={"width": 64, "layers": 2}), "another model"),
    ],
)
def test_broken_adapters_are_refused_in_one_sentence(stored, tiny_llava, breaking, said):
    breaking(stored)
    loaded = load(tiny_llava)
    with pytest.raises(ValueError, match=said):
        load_adapter(loaded.model, stored, loaded.family)


def edited(path: Path, **changes) -> None:
    file = path / "reversible_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_lambda_is_a_number_whose_product_with_what_a_layer_reads_is_exact():
    scale = deep(1).layers[0].scale
    assert scale == float(torch.tensor(0.1))
    assert reversible_layers.WIDE == torch.float64
