"""On every family, whatever trains and however units, rows and images nest: equal to one unit at a time."""

import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from benchmarks.tiny_families import FAMILIES, load_family, load_trained, write_family
from stages.privacy.clipping_rule import Clipping
from stages.privacy.trainable_layers import TrainableLayers
from stages.privacy.unit_gradients import UnitGradients
from stages.vlm.attribution import first_axis, segments_of
from stages.vlm.synthetic import SyntheticRow, synthetic_inputs, text_losses

EXACT = 1e-5
TRAINS = [("lm",), ("projector",), ("vision",), ("lm", "projector", "vision")]
SHAPES = {
    # name: (images of each row, unit of each row)
    "one image a row": ([1, 1, 1], [0, 1, 2]),
    "two images a row, several rows a unit": ([2, 2, 2], [0, 0, 1]),
    "four images a row": ([4, 4], [0, 1]),
    "one unit alone": ([2, 1], [0, 0]),
    "text rows among image rows": ([1, 0, 2, 0], [0, 0, 1, 2]),
}


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {name: write_family(name, folder / str(index)) for index, name in enumerate(FAMILIES)}


def engine(model, layers, questions, unit_of_row, norms="choose"):
    inputs = synthetic_inputs(model.config, questions)
    segments = segments_of(model, inputs, np.array(unit_of_row))
    return UnitGradients.of(layers, segments, lambda: text_losses(model, inputs), norms=norms)


def slow(model, layers, questions, unit_of_row):
    """One unit at a time: each of its rows alone through the model, plain autograd, the mean."""
    weights = list(layers.parameters().values())
    found = []
    for unit in range(unit_of_row[-1] + 1):
        rows = [question for question, owner in zip(questions, unit_of_row, strict=True) if owner == unit]
        total = torch.zeros_like(layers.flat(), dtype=torch.float64)
        for question in rows:
            loss = text_losses(model, synthetic_inputs(model.config, [question]))[0]
            if not loss.requires_grad:  # a row of text alone, and nothing after its images learns
                continue
            parts = torch.autograd.grad(loss, weights, allow_unused=True)
            total += torch.cat(
                [
                    torch.zeros(weight.numel()).double() if part is None else part.flatten().double()
                    for part, weight in zip(parts, weights, strict=True)
                ]
            )
        found.append(total / len(rows))
    return torch.stack(found)


@pytest.mark.parametrize("parts", TRAINS, ids=" ".join)
@pytest.mark.parametrize("name", FAMILIES)
def test_norms_and_clipped_sums_equal_one_unit_at_a_time_autograd(families, name, parts):
    model, layers = load_trained(families[name], parts)
    for shape, (images, unit_of_row) in SHAPES.items():
        questions = [SyntheticRow(seed, count, 4 + seed) for seed, count in enumerate(images)]
        expected_UP = slow(model, layers, questions, unit_of_row)
        norms_U = expected_UP.norm(dim=1)
        for norms in ("choose", "ghost"):
            found = engine(model, layers, questions, unit_of_row, norms)
            assert found.norms_U().shape == norms_U.shape, shape
            assert (found.norms_U() - norms_U).norm() <= EXACT * norms_U.norm(), shape
            assert (found.stacked() - expected_UP).norm() <= EXACT * expected_UP.norm(), shape
            clip = float(norms_U.median())
            factor_U = (clip / norms_U).clamp(max=1)
            clipped_P = found.clipped_sum(Clipping(clip)).sum_P
            assert (clipped_P - factor_U @ expected_UP).norm() <= EXACT * clipped_P.norm(), shape


def test_modules_that_peft_trains_whole_are_exact(families):
    """``modules_to_save`` puts a trainable copy of the projector, biases included, beside the frozen one."""
    base = load_family(families["LLaVA (CLIP)"])
    config = LoraConfig(
        r=2,
        target_modules=r".*language_model.*q_proj",
        modules_to_save=["multi_modal_projector"],
        init_lora_weights=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a deprecated name
        model = get_peft_model(base, config, autocast_adapter_dtype=False).eval()
    layers = TrainableLayers.of(model, first_axis("llava"))
    assert any("modules_to_save.default.linear_1.bias" in name for name in layers.parameters())
    images, unit_of_row = SHAPES["two images a row, several rows a unit"]
    questions = [SyntheticRow(seed, count) for seed, count in enumerate(images)]
    expected_UP = slow(model, layers, questions, unit_of_row)
    found_UP = engine(model, layers, questions, unit_of_row).stacked()
    assert (found_UP - expected_UP).norm() <= EXACT * expected_UP.norm()


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_models_have_norms_within_one_percent(families, name):
    model, layers = load_trained(families[name], ("lm",), torch.bfloat16)
    images, unit_of_row = SHAPES["two images a row, several rows a unit"]
    questions = [SyntheticRow(seed, count) for seed, count in enumerate(images)]
    expected = slow(model, layers, questions, unit_of_row).norm(dim=1)
    found = engine(model, layers, questions, unit_of_row).norms_U()
    assert ((found - expected).abs() <= 0.01 * expected).all(), found / expected


@pytest.mark.parametrize("name", ["SmolVLM", "Idefics3", "Qwen2-VL", "Qwen2.5-VL"])
def test_an_image_in_the_wrong_row_is_refused_though_the_batch_has_slots_for_all(families, name):
    config = load_family(families[name]).config
    inputs = synthetic_inputs(config, [SyntheticRow(0, 1), SyntheticRow(1, 2)])
    segments_of(load_family(families[name]), inputs, np.array([0, 1]))
    swapped = synthetic_inputs(config, [SyntheticRow(1, 2), SyntheticRow(0, 1)])
    inputs["input_ids"] = swapped["input_ids"]
    if "image_grid_thw" in inputs:
        inputs["image_grid_thw"][0] = torch.tensor([1, 4, 8])
    with pytest.raises(ValueError, match="every row needs as many"):
        segments_of(load_family(families[name]), inputs, np.array([0, 1]))


def test_a_family_whose_axes_are_unknown_is_refused():
    with pytest.raises(ValueError, match="models of type 'mllama' are not supported"):
        first_axis("mllama")
