"""Idefics3 and SmolVLM: a picture cut into tiles and one of the whole, each a run of slots between marks.

Slots are what the connector makes of squares of patches; everything known of patches is averaged over the
same squares.
"""

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import nn

from stages.vlm.attention import watched
from stages.vlm.families.family import Family, on_device, seen_in_squares, unwrapped
from stages.vlm.seen import Box, Prepared, Seen


class Tiled(Family):
    """Idefics3ForConditionalGeneration and SmolVLMForConditionalGeneration."""

    model_types = ("idefics3", "smolvlm")
    LANGUAGE_MODEL = r".*text_model\..*"

    def tower(self, model: nn.Module) -> Any:
        """Return the vision tower."""
        return unwrapped(model).model.vision_model

    def language(self, model: nn.Module) -> Any:
        """Return the language model without its head."""
        return unwrapped(model).model.text_model

    def slots_per_image(self, model: nn.Module) -> int | None:
        """Tell that the number of slots depends on the image's shape."""
        return None

    def nested(self, picture: Image.Image) -> Any:
        """Return a batch of one row with one image."""
        return [[picture]]

    def grid(self, inputs: Mapping[str, Any]) -> tuple[int, ...]:
        """Return into how many rows and columns the image was cut; 0, 0: into none."""
        return int(inputs["rows"][0][0]), int(inputs["cols"][0][0])

    def boxes(self, processor: Any, picture: Image.Image, grid: tuple[int, ...]) -> tuple[Box, ...]:
        """Return the tiles, row by row, and behind them the whole."""
        rows, columns = grid
        tiles = [(row, column) for row in range(rows) for column in range(columns)]
        return (
            *(
                (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
                for row, column in tiles
            ),
            (0.0, 0.0, 1.0, 1.0),
        )

    @torch.no_grad()
    def look(self, model: nn.Module, prepared: Prepared, layers: tuple[int, ...]) -> Seen:
        """Run tower and connector on all tiles of one image."""
        base, tower = unwrapped(model), self.tower(model)
        inputs = on_device(model, prepared.inputs)
        given = {name: inputs[name] for name in ("pixel_values", "pixel_attention_mask") if name in inputs}
        with watched(tower, self.attention_modules(model) if layers else [], layers, False) as found:
            slots_TD = base.model.get_image_features(**given, return_dict=True).pooler_output[0]
        side = base.config.vision_config.image_size // base.config.vision_config.patch_size
        return seen_in_squares(slots_TD, prepared.frame, side, base.config.scale_factor, found, layers)
