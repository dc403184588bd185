"""Which unit owns every row, image, tile and patch of a batch of a Hugging Face vision-language model.

A batch is what the model's own processor returns. Image parts follow each other in the order of the rows.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.privacy.segments import Segments
from stages.privacy.trainable_layers import ROW

_BY_IMAGE = ((r"\b(vision_tower|multi_modal_projector)\b", "image"),)
_BY_TILE = ((r"\b(vision_model|connector)\b", "tile"),)
_BY_PATCH = (
    (r"\bvisual\.(merger|deepstack_merger_list)\b", "merged patch"),
    (r"\bvisual\b", "patch"),
)
_ROWS_ONLY = ()
"""Language model only: who owns a tile depends on how the model packs tiles."""
_AXES: dict[str, tuple[tuple[str, str], ...]] = {
    "gemma3": _BY_IMAGE,
    "llava": _BY_IMAGE,
    "llava_next": _ROWS_ONLY,
    "llava_onevision": _ROWS_ONLY,
    "paligemma": _BY_IMAGE,
    "idefics3": _BY_TILE,
    "smolvlm": _BY_TILE,
    "qwen2_vl": _BY_PATCH,
    "qwen2_5_vl": _BY_PATCH,
    "qwen3_vl": _BY_PATCH,
}


def supported() -> list[str]:
    """Return the model types whose batches can be attributed."""
    return sorted(_AXES)


def first_axis(model_type: str) -> Callable[[str], str]:
    """Return what tells, by a layer's name, what the first axis of its input counts.

    ``model_type`` is that of the model's configuration; one that is not supported is refused.
    """
    if model_type not in _AXES:
        raise ValueError(
            f"models of type '{model_type}' are not supported: which unit owns an entry of their layers is "
            f"not known; supported: {supported()}"
        )
    axes: tuple[tuple[str, str], ...] = _AXES[model_type]

    def axis_of(layer: str) -> str:
        if axes == _ROWS_ONLY and not re.search(r"\b(language_model|lm_head)\b", layer):
            raise ValueError(
                f"'{layer}' is not of the language model, and of a {model_type} only that trains"
            )
        return next((axis for pattern, axis in axes if re.search(pattern, layer)), ROW)

    return axis_of


def segments_of(model: Any, inputs: Mapping[str, Tensor], unit_of_row: NDArray[np.int64]) -> Segments:
    """Attribute a batch; every row must hold as many image slots as its images give features.

    transformers checks that total for the whole batch only, and an off-by-one between two rows would let one
    see the other's image.
    """
    config = model.config
    if _AXES[config.model_type] == _ROWS_ONLY:
        raise ValueError(
            f"which unit owns a tile of a model of type '{config.model_type}' is not known: only its "
            "language model can be trained, and `dvc repro finetune` checks that"
        )
    units = int(unit_of_row[-1]) + 1 if len(unit_of_row) else 0
    slots_R = (inputs["input_ids"] == config.image_token_id).sum(dim=1).tolist()
    pixels = inputs.get("pixel_values")
    if pixels is None:
        _require_slots(slots_R, [0] * len(slots_R))
        return Segments.of(units, row=unit_of_row, **{axis: [] for _, axis in _AXES[config.model_type]})
    if _AXES[config.model_type] == _BY_TILE:
        return _by_tile(config, pixels, slots_R, unit_of_row, units)
    if _AXES[config.model_type] == _BY_PATCH:
        return _by_patch(config, inputs["image_grid_thw"], slots_R, unit_of_row, units)
    each = sum(slots_R) // len(pixels)
    images_R = [slots // each if each else 0 for slots in slots_R]
    _require_slots(slots_R, [count * each for count in images_R])
    return Segments.of(units, row=unit_of_row, image=np.repeat(unit_of_row, images_R))


def _by_tile(
    config: Any, pixels: Tensor, slots_R: list[int], unit_of_row: NDArray[np.int64], units: int
) -> Segments:
    """Attribute (R, tiles, C, H, W); blank tiles are padding, which the model drops."""
    tiles_R = (pixels != 0).flatten(2).any(dim=2).sum(dim=1)
    side = pixels.shape[-1] // config.vision_config.patch_size
    _require_slots(slots_R, (tiles_R * (side // config.scale_factor) ** 2).tolist())
    return Segments.of(units, row=unit_of_row, tile=np.repeat(unit_of_row, tiles_R.tolist()))


def _by_patch(
    config: Any, grid_I3: Tensor, slots_R: list[int], unit_of_row: NDArray[np.int64], units: int
) -> Segments:
    """Attribute patches packed along the first axis, the images of all rows one behind the other."""
    patches_I = grid_I3.prod(dim=1)
    merged_I = torch.div(
        patches_I, config.vision_config.spatial_merge_size**2, rounding_mode="floor"
    ).tolist()
    image, row_of_image = 0, []
    for row, slots in enumerate(slots_R):
        held = 0
        while held < slots and image < len(merged_I):
            held += merged_I[image]
            row_of_image.append(row)
            image += 1
        _require_slots([slots], [held])
    _require_slots([sum(slots_R)], [sum(merged_I)])
    unit_of_image = unit_of_row[row_of_image]
    return Segments.of(
        units,
        row=unit_of_row,
        **{
            "patch": np.repeat(unit_of_image, patches_I.tolist()),
            "merged patch": np.repeat(unit_of_image, merged_I),
        },
    )


def _require_slots(slots: list[int], features: list[int]) -> None:
    if slots != features:
        raise ValueError(
            f"rows with {slots} image slots have {features} image features: every row needs as many"
        )
