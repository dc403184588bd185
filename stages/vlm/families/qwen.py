"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any shape, positions of three axes (M-RoPE).

Slots are what the merger makes of squares of patches, and, for Qwen3-VL, beside it what its deepstack mergers
make of the same squares: all of a slot is kept, fused or dropped together. Qwen2.5-VL's tower reads patches
window by window; what is known of them is put back in the image's order.

Shapes beside those of ``family``: M patches of one square.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.vision_utils import get_vision_window_index

from stages.vlm.attention import watched
from stages.vlm.families.family import Family, on_device, require_slots, unwrapped
from stages.vlm.seen import Frame, Prepared, Seen


class QwenVl(Family):
    """Qwen2VL-, Qwen2_5_VL- and Qwen3VLForConditionalGeneration."""

    model_types = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

    def tower(self, model: nn.Module) -> Any:
        """Return the vision tower, mergers included."""
        return unwrapped(model).model.visual

    def slot_width(self, model: nn.Module) -> int:
        """Return the width of a slot, and behind it of what Qwen3-VL's deepstack adds in deeper layers."""
        vision = unwrapped(model).config.vision_config
        return super().slot_width(model) * (1 + len(getattr(vision, "deepstack_visual_indexes", [])))

    def slots_per_image(self, model: nn.Module) -> int | None:
        """Tell that the number of slots depends on the image's shape."""
        return None

    def grid(self, inputs: Mapping[str, Any]) -> tuple[int, ...]:
        """Return how many patches the image has along time, height and width."""
        time, height, width = inputs["image_grid_thw"][0].tolist()
        return time, height, width

    @torch.no_grad()
    def look(self, model: nn.Module, prepared: Prepared, layers: tuple[int, ...]) -> Seen:
        """Run tower and mergers on one image."""
        base, tower = unwrapped(model), self.tower(model)
        inputs = on_device(model, prepared.inputs)
        grid_13 = inputs["image_grid_thw"]
        with watched(tower, self.attention_modules(model) if layers else [], layers, False) as found:
            made = base.model.get_image_features(inputs["pixel_values"], grid_13, return_dict=True)
        deeper = [feature[0] for feature in getattr(made, "deepstack_features", None) or []]
        slots_TD = torch.cat([made.pooler_output[0], *deeper], dim=-1)
        require_slots(len(slots_TD), prepared.frame)
        time, height, width = prepared.frame.grid
        factor = base.config.vision_config.spatial_merge_size
        order_T = _image_order(base.config, grid_13).to(slots_TD.device)
        return Seen(
            slots_TD,
            torch.arange(len(slots_TD), device=slots_TD.device),
            ((height // factor, width // factor),) * time,
            {layer: _squares(found.score(layer)[:, None], factor)[order_T, 0] for layer in layers},
            {layer: normalize(_squares(found.metric(layer), factor)[order_T], dim=-1) for layer in layers},
            found.work,
        )

    def positions(
        self, model: nn.Module, input_ids: Sequence[int], frames: Sequence[Frame]
    ) -> list[list[int]]:
        """Return positions in time, height and width, as the model itself counts them."""
        base = unwrapped(model)
        if not frames:
            return [list(range(len(input_ids)))] * 3
        ids_1L = torch.tensor([list(input_ids)])
        found_31L, _ = base.model.get_rope_index(
            ids_1L,
            mm_token_type_ids=(ids_1L == base.config.image_token_id).int(),
            image_grid_thw=torch.tensor([frame.grid for frame in frames]),
        )
        positions: list[list[int]] = found_31L[:, 0].tolist()
        return positions

    def entering(self, base: Any, features: Sequence[Tensor]) -> BaseModelOutputWithPooling:
        """Return slots, and for Qwen3-VL what its deepstack adds to them, as the model takes them."""
        if base.config.model_type != "qwen3_vl":
            return super().entering(base, features)
        width = base.config.text_config.hidden_size
        slots, *deeper = zip(*(torch.split(feature, width, dim=-1) for feature in features), strict=True)
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=list(slots),  # type: ignore[arg-type]
            deepstack_features=[[one.to(base.device, base.dtype) for one in layer] for layer in deeper],  # type: ignore[misc]
        )


def _squares(values_NE: Tensor, factor: int) -> Tensor:
    """Average over the M patches of each square, which stand together."""
    return values_NE.view(-1, factor**2, values_NE.shape[1]).mean(dim=1)


def _image_order(config: Any, grid_13: Tensor) -> Tensor:
    """Return where in the tower each slot of the image is, (T,)."""
    vision = config.vision_config
    factor = vision.spatial_merge_size
    if config.model_type != "qwen2_5_vl":
        return torch.arange(int(grid_13.prod()) // factor**2)
    window_T, _ = get_vision_window_index(
        grid_13, spatial_merge_size=factor, window_size=vision.window_size, patch_size=vision.patch_size
    )
    return window_T.argsort()
