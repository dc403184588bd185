"""LLaVA: vision tower (CLIP or SigLIP), projector, language model (LlavaForConditionalGeneration).

Slots are the tower's patches before the projector, as in the published mechanism; the projector, frozen like
all else, is applied to those that stay.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stages.vlm.attention import watched
from stages.vlm.families.family import Family, on_device, require_slots, unwrapped
from stages.vlm.seen import Box, Prepared, Seen

_TOWERS = ("clip_vision_model", "siglip_vision_model")


class Llava(Family):
    """LlavaForConditionalGeneration."""

    model_types = ("llava",)

    def tower(self, model: nn.Module) -> Any:
        """Return the vision tower."""
        return unwrapped(model).model.vision_tower

    def slots_per_image(self, model: nn.Module) -> int | None:
        """Return the number of visual tokens of an unpruned image."""
        vision = unwrapped(model).config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return int(patches + has_class_token(self.tower(model)) - drops_class_token(model))

    def slot_width(self, model: nn.Module) -> int:
        """Return the width of a patch before the projector, over all layers it is taken from."""
        config = unwrapped(model).config
        layers = config.vision_feature_layer
        return int(config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers)))

    def require_prunable(self, model: nn.Module) -> None:
        """Refuse a LLaVA whose visual tokens are not exactly its tower's patches."""
        require_patches(model, self.tower(model))

    def boxes(self, processor: Any, picture: Image.Image, grid: tuple[int, ...]) -> tuple[Box, ...]:
        """Return the square in the middle where the processor cuts off what sticks out."""
        if not getattr(processor.image_processor, "do_center_crop", False):
            return ()
        width, height = picture.size
        side = min(width, height)
        left, top = (width - side) / 2 / width, (height - side) / 2 / height
        return ((left, top, 1 - left, 1 - top),)

    @torch.no_grad()
    def look(self, model: nn.Module, prepared: Prepared, layers: tuple[int, ...]) -> Seen:
        """Run the tower; the projector comes after pruning."""
        base, tower = unwrapped(model), self.tower(model)
        kind = base.config.vision_config.model_type
        if kind not in _TOWERS:
            raise ValueError(
                f"a LLaVA with a vision tower of type '{kind}' is not supported: {list(_TOWERS)}"
            )
        class_token = has_class_token(tower)
        pixels = on_device(model, prepared.inputs)["pixel_values"]
        with watched(tower, self.attention_modules(model) if layers else [], layers, class_token) as found:
            seen = tower(pixels, output_hidden_states=True, return_dict=True)
        chosen = base.config.vision_feature_layer
        indices = [chosen] if isinstance(chosen, int) else chosen
        hidden_TD = torch.cat([seen.hidden_states[index][0] for index in indices], dim=-1)
        slots_TD = hidden_TD[1:] if drops_class_token(model) else hidden_TD
        require_slots(len(slots_TD), prepared.frame)
        marks = len(slots_TD) - (len(hidden_TD) - class_token)
        side = round((len(slots_TD) - marks) ** 0.5)
        return Seen(
            slots_TD,
            torch.arange(marks, len(slots_TD), device=slots_TD.device),
            ((side, side),),
            {layer: found.score(layer) for layer in layers},
            {layer: found.metric(layer) for layer in layers},
            found.work,
        )

    def entering(self, base: Any, features: Sequence[Tensor]) -> BaseModelOutputWithPooling:
        """Project the slots that stayed."""
        projected = base.model.multi_modal_projector(torch.cat(list(features)).to(base.dtype))
        return super().entering(base, projected.split([len(feature_SD) for feature_SD in features]))


def has_class_token(tower: nn.Module) -> bool:
    """Tell whether the tower's first token stands for the whole picture."""
    return any(name.endswith("class_embedding") for name, _ in tower.named_parameters())


def drops_class_token(model: nn.Module) -> bool:
    """Tell whether the first token of the tower is left out of the visual tokens."""
    return bool(unwrapped(model).config.vision_feature_select_strategy == "default")


def require_patches(model: nn.Module, tower: nn.Module) -> None:
    """Refuse a model that shows the class token, or drops a patch in its stead."""
    if has_class_token(tower) != drops_class_token(model):
        strategy = unwrapped(model).config.vision_feature_select_strategy
        raise ValueError(
            "this LLaVA's visual tokens are not its tower's patches (vision_feature_select_strategy "
            f"'{strategy}'): tokens.select must be all"
        )
