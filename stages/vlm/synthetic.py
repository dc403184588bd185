"""Random inputs of the shape a model takes, made from its configuration and a public seed alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stages.records.token_rows import IGNORED


@dataclass(frozen=True)
class SyntheticRow:
    """One row: how many images and words it has, and the seed it is drawn from."""

    seed: int
    images: int
    words: int = 8


def synthetic_inputs(config: Any, rows: Sequence[SyntheticRow]) -> dict[str, Tensor]:
    """Return a batch as the model's processor would lay it out, padded on the right."""
    layout = _LAYOUTS[config.model_type](config)
    ids = [_ids(config, layout.slots, row) for row in rows]
    length = max(len(row) for row in ids)
    input_ids = torch.tensor([row + [0] * (length - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    inputs = {"input_ids": input_ids, "attention_mask": mask, **layout.token_types(input_ids)}
    if any(row.images for row in rows):
        inputs |= layout.pixels(rows)
    return inputs


def text_losses(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return each row's mean cross-entropy over its own text, shape (R,): a loss that needs no labels."""
    parameter = next(model.parameters())
    given = {
        name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }
    logits = model(**given, use_cache=False).logits[:, :-1]
    ids, mask = given["input_ids"][:, 1:], given["attention_mask"][:, 1:]
    labels = ids.masked_fill((mask == 0) | (ids == model.config.image_token_id), IGNORED)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    losses = nn.functional.cross_entropy(wide.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
    return losses.sum(dim=1) / (labels != IGNORED).sum(dim=1)


def _ids(config: Any, slots: int, row: SyntheticRow) -> list[int]:
    text = config.get_text_config()
    low, high = text.vocab_size // 4, text.vocab_size // 2
    generator = torch.Generator().manual_seed(row.seed)
    words = torch.randint(low, high, (row.words,), generator=generator).tolist()
    images = [low, *[config.image_token_id] * slots] * row.images  # a mark before each, as processors write
    return [low, *images, *words]


class _Images:
    """LLaVA, PaliGemma and Gemma 3: one picture an image, packed over the rows."""

    def __init__(self, config: Any) -> None:
        self.config, self.vision = config, config.vision_config
        class_token = "clip" in self.vision.model_type
        dropped = getattr(config, "vision_feature_select_strategy", "full") == "default"
        patches = (self.vision.image_size // self.vision.patch_size) ** 2
        self.slots = getattr(config, "mm_tokens_per_image", patches + class_token - dropped)

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        if self.config.model_type == "gemma3":
            return {"token_type_ids": (ids == self.config.image_token_id).int()}
        return {"token_type_ids": torch.zeros_like(ids)} if self.config.model_type == "paligemma" else {}

    def pixels(self, rows: Sequence[SyntheticRow]) -> dict[str, Tensor]:
        side = self.vision.image_size
        return {"pixel_values": torch.cat([_noise(row, 3, side, side) for row in rows])}


class _Tiles:
    """Idefics3 and SmolVLM: (rows, tiles), blank where a row has fewer."""

    def __init__(self, config: Any) -> None:
        self.side = config.vision_config.image_size
        self.slots = (self.side // config.vision_config.patch_size // config.scale_factor) ** 2

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}

    def pixels(self, rows: Sequence[SyntheticRow]) -> dict[str, Tensor]:
        found = torch.zeros(len(rows), max(row.images for row in rows), 3, self.side, self.side)
        for index, row in enumerate(rows):
            found[index, : row.images] = _noise(row, 3, self.side, self.side)
        return {"pixel_values": found}


class _Patches:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches without a batch axis, and a grid for each image."""

    MERGED = 2
    """Merged patches along each side of an image."""

    def __init__(self, config: Any) -> None:
        self.config, self.vision = config, config.vision_config
        self.slots = self.MERGED**2

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (ids == self.config.image_token_id).int()}

    def pixels(self, rows: Sequence[SyntheticRow]) -> dict[str, Tensor]:
        vision, side = self.vision, self.MERGED * self.vision.spatial_merge_size
        width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        images = sum(row.images for row in rows)
        return {
            "pixel_values": torch.cat([_noise(row, side**2, width).flatten(0, 1) for row in rows]),
            "image_grid_thw": torch.tensor([[1, side, side]] * images),
        }


_LAYOUTS: dict[str, Any] = {
    "gemma3": _Images,
    "llava": _Images,
    "paligemma": _Images,
    "idefics3": _Tiles,
    "smolvlm": _Tiles,
    "qwen2_vl": _Patches,
    "qwen2_5_vl": _Patches,
    "qwen3_vl": _Patches,
}


def _noise(row: SyntheticRow, *shape: int) -> Tensor:
    return torch.randn(row.images, *shape, generator=torch.Generator().manual_seed(row.seed))
