"""What is read off attention is what the tower's own eager attention says, patch by patch."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_directories import write_directory
from models import load_float64
from stages.vlm.attention import received
from stages.vlm.encoder import prepare
from stages.vlm.families.family import on_device
from stages.vlm.loaded import Loaded
from tests.stages.vlm.test_families import picture

LAYER = 1
MODELING = {
    "LLaVA (CLIP)": "clip.modeling_clip",
    "LLaVA (SigLIP)": "siglip.modeling_siglip",
    "PaliGemma": "siglip.modeling_siglip",
    "Qwen2-VL": "qwen2_vl.modeling_qwen2_vl",
    "Qwen2.5-VL": "qwen2_5_vl.modeling_qwen2_5_vl",
    "Qwen3-VL": "qwen3_vl.modeling_qwen3_vl",
    "Idefics3": "idefics3.modeling_idefics3",
}


def eager_maps(
    loaded: Loaded, name: str, inputs: dict[str, Tensor], patch: pytest.MonkeyPatch
) -> list[Tensor]:
    """Return the attention maps (1 or tiles, H, N, N) of one layer from transformers' own eager attention."""
    module = importlib.import_module(f"transformers.models.{MODELING[name]}")
    watched, maps = loaded.family.attention_modules(loaded.model)[LAYER], []
    eager = module.eager_attention_forward

    def recorded(layer: Any, *arguments: Any, **settings: Any) -> Any:
        output, weights = eager(layer, *arguments, **settings)
        if layer is watched:
            maps.append(weights)
        return output, weights

    patch.setattr(module, "eager_attention_forward", recorded)
    tower = loaded.family.tower(loaded.model)
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        loaded.model.model.get_image_features(**inputs, return_dict=True)
    tower.set_attn_implementation("sdpa")
    return maps


def expected_scores(loaded: Loaded, name: str, maps: list[Tensor]) -> list[float]:
    """Add up, one patch at a time, what the maps say of it."""
    heads = maps[0].shape[1]
    if name == "LLaVA (CLIP)":
        return [
            sum(float(maps[0][0, head, 0, 1 + patch]) for head in range(heads)) / heads
            for patch in range(maps[0].shape[2] - 1)
        ]
    scores = []
    for piece in maps:
        for tile in range(piece.shape[0]):
            received = piece[tile].sum(dim=(0, 1)) / heads
            scores += received.tolist()
    return scores


def squares(name: str, scores: list[float], grid: tuple[int, ...]) -> list[float]:
    """Average over what becomes one slot, in the order of the image."""
    if name == "Idefics3":  # tiles of 4 x 4 patches, squares of 2 x 2
        return [
            sum(scores[16 * tile + 4 * (2 * y + i) + 2 * x + j] for i in range(2) for j in range(2)) / 4
            for tile in range(len(scores) // 16)
            for y in range(2)
            for x in range(2)
        ]
    merged = [sum(scores[4 * square : 4 * square + 4]) / 4 for square in range(len(scores) // 4)]
    if name != "Qwen2.5-VL":
        return merged
    rows, columns, side = grid[1] // 2, grid[2] // 2, 2  # windows of 2 x 2 squares, row by row
    order = [
        row * columns + column
        for top in range(0, rows, side)
        for left in range(0, columns, side)
        for row in range(top, min(top + side, rows))
        for column in range(left, min(left + side, columns))
    ]
    found = [0.0] * len(merged)
    for place, square in enumerate(order):
        found[square] = merged[place]
    return found


@pytest.mark.parametrize("name", sorted(MODELING))
@pytest.mark.parametrize("seed", [1, 2])
def test_scores_are_those_of_eager_attention(
    name: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_float64(write_directory(name, tmp_path / "model"))
    prepared = prepare(loaded, picture(seed))
    seen = loaded.family.look(loaded.model, prepared, (LAYER,))
    inputs = on_device(loaded.model, prepared.inputs)
    wanted = ("pixel_values", "image_grid_thw", "pixel_attention_mask")
    given = {key: inputs[key] for key in wanted if key in inputs}
    maps = eager_maps(loaded, name, given, monkeypatch)
    scores = expected_scores(loaded, name, maps)
    if name.startswith("Qwen") or name == "Idefics3":
        scores = squares(name, scores, prepared.frame.grid)
    assert seen.scores[LAYER].tolist() == pytest.approx(scores, rel=2e-6), "eager softmax is float32"
    assert len(set(scores)) > len(scores) // 2, "patches differ"


def test_half_precision_is_widened_before_anything_is_added_up() -> None:
    """In bfloat16 hundreds of patches would have the same score."""
    generator = torch.Generator().manual_seed(0)
    query, key = (0.3 * torch.randn(1, 2, 400, 16, generator=generator).bfloat16() for _ in range(2))
    found = received(query, key, None, 0.25)
    assert found.dtype == torch.float32
    assert torch.allclose(found, received(query.float(), key.float(), None, 0.25), rtol=1e-6)
    assert len(set(found.flatten().tolist())) > 390
    assert len(set(found.bfloat16().flatten().tolist())) < 100, "negative control"


def test_a_tower_is_left_as_it_was(tmp_path: Path) -> None:
    loaded = load_float64(write_directory("LLaVA (SigLIP)", tmp_path / "model"))
    tower = loaded.family.tower(loaded.model)
    before = tower.config._attn_implementation
    loaded.family.look(loaded.model, prepare(loaded, picture(0)), (0, 1))
    assert tower.config._attn_implementation == before
