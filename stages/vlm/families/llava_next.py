"""LLaVA-NeXT and LLaVA-OneVision: a picture of the whole and tiles of it, one slot at the end of every line.

Slots are projected features, packed by the model itself: tiles put together, borders of padding cut off.
Everything known of patches is packed by the same function, so that it stays beside its slot. Ends of lines
are no patches: every rule but ``all`` drops them.

Shapes beside those of ``family``: C what is known of a patch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stages.vlm.attention import Watched, watched
from stages.vlm.families.family import Family, on_device, require_slots, unwrapped
from stages.vlm.families.llava import drops_class_token, has_class_token, require_patches
from stages.vlm.seen import Prepared, Seen


class LlavaNext(Family):
    """LlavaNextForConditionalGeneration and LlavaOnevisionForConditionalGeneration."""

    model_types = ("llava_next", "llava_onevision")

    def tower(self, model: nn.Module) -> Any:
        """Return the vision tower."""
        return unwrapped(model).model.vision_tower

    def slots_per_image(self, model: nn.Module) -> int | None:
        """Tell that the number of slots depends on the image's shape."""
        return None

    def require_prunable(self, model: nn.Module) -> None:
        """Refuse a model whose visual tokens are not exactly its tower's patches."""
        require_patches(model, self.tower(model))

    def require_row(self, model: nn.Module, images: int) -> None:
        """Refuse several images of a LLaVA-OneVision row, which it does not take apart into tiles."""
        if images > 1 and unwrapped(model).config.model_type == "llava_onevision":
            raise ValueError(
                f"a record has {images} images, and LLaVA-OneVision shows several images of a row otherwise "
                "than one: give each record one image, or take another model"
            )

    @torch.no_grad()
    def look(self, model: nn.Module, prepared: Prepared, layers: tuple[int, ...]) -> Seen:
        """Run tower and projector on all tiles of one image, and pack them as the model does."""
        base, tower = unwrapped(model), self.tower(model)
        class_token = has_class_token(tower)
        inputs = on_device(model, prepared.inputs)
        sizes = inputs["image_sizes"]
        given = {"pixel_values": inputs["pixel_values"], "image_sizes": sizes, "return_dict": True}
        with watched(tower, self.attention_modules(model) if layers else [], layers, class_token) as found:
            slots_TD = base.model.get_image_features(**given).pooler_output[0]
        require_slots(len(slots_TD), prepared.frame)
        side = base.config.vision_config.image_size // base.config.vision_config.patch_size
        if class_token and not drops_class_token(model):
            return Seen(slots_TD, torch.arange(0), (), {}, {}, {})
        tiles = inputs["pixel_values"].shape[1]
        packed = {layer: self._packed(base, sizes, tiles, found, layer) for layer in layers}
        if not layers:
            one = torch.ones(tiles, side**2, 1, device=slots_TD.device, dtype=slots_TD.dtype)
            packed = {-1: _pack(base, one, sizes)}
        is_patch_T = next(iter(packed.values()))[:, 0].isfinite()
        patch_P = is_patch_T.nonzero()[:, 0]
        return Seen(
            slots_TD,
            patch_P,
            _panels(is_patch_T, side),
            {layer: packed[layer][patch_P, 0] for layer in layers},
            {layer: nn.functional.normalize(packed[layer][patch_P, 1:], dim=-1) for layer in layers},
            found.work,
        )

    def _packed(self, base: Any, sizes: Tensor, tiles: int, found: Watched, layer: int) -> Tensor:
        known_NC = torch.cat([found.score(layer)[:, None], found.metric(layer)], dim=1)
        return _pack(base, known_NC.view(tiles, -1, known_NC.shape[1]), sizes)


def _pack(base: Any, known_NPC: Tensor, sizes: Tensor) -> Tensor:
    """Return what is known of the tiles' patches slot by slot, (T, C); ends of lines are not a number."""
    newline_C = torch.full_like(known_NPC[0, 0], torch.nan)
    settings = (
        {"vision_feature_select_strategy": base.config.vision_feature_select_strategy}
        if base.config.model_type == "llava_next"
        else {"vision_aspect_ratio": base.config.vision_aspect_ratio}
    )
    packed, _ = base.model.pack_image_features([known_NPC], sizes, image_newline=newline_C, **settings)
    packed_TC: Tensor = packed[0]
    return packed_TC


def _panels(is_patch_T: Tensor, side: int) -> tuple[tuple[int, int], ...]:
    rest, lines = int(is_patch_T.sum()) - side**2, int((~is_patch_T).sum())
    return ((side, side), (lines, rest // lines)) if rest else ((side, side),)
