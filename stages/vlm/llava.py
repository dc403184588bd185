"""The LLaVA family: vision tower, projector, language model (LlavaForConditionalGeneration).

Shapes: B images, N = T + 1 tower tokens with the class token first (N = T without), T patch tokens, D tower
width, R rows, L places, A learned places of the row with most.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stages.records.encoded import IGNORED, Batch
from stages.vlm.pruning import class_token_scores, similarity_metric

LANGUAGE_MODEL = r".*language_model\..*"
"""Matches modules of the language model and none of the tower; bare names such as q_proj match both."""


@dataclass(frozen=True)
class Seen:
    """What the frozen tower made of some images."""

    hidden_BTD: Tensor
    """Patch features as the projector takes them, before pruning."""
    scores: dict[int, Tensor]
    """Importance of each patch by encoder layer, (B, T) each."""
    metrics: dict[int, Tensor]
    """Similarity metric of each patch by encoder layer, (B, T, E) each."""


def slots_per_image(model: nn.Module) -> int:
    """Return the number of visual tokens of an unpruned image."""
    vision = _base(model).config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    return int(patches + _has_class_token(model) - _drops_class_token(model))


def scored_layers(model: nn.Module) -> tuple[int, ...]:
    """Return the encoder layers whose attention can score patches, first to last."""
    return tuple(range(_base(model).config.vision_config.num_hidden_layers))


def require_prunable(model: nn.Module) -> None:
    """Refuse a LLaVA whose visual tokens are not exactly its tower's patches."""
    if _has_class_token(model) != _drops_class_token(model):
        strategy = _base(model).config.vision_feature_select_strategy
        raise ValueError(
            "this LLaVA's visual tokens are not its tower's patches (vision_feature_select_strategy "
            f"'{strategy}'): "
            "tokens.select must be all"
        )


@torch.no_grad()
def look(model: nn.Module, pixels_BCHW: Tensor, layers: tuple[int, ...]) -> Seen:
    """Run the frozen tower; scores and metrics for ``layers`` only, none if empty."""
    inner = _base(model).model
    tower, config = inner.vision_tower, _base(model).config
    keys: dict[int, Tensor] = {}
    with _eager(tower, bool(layers)), _keep_keys(tower, layers, keys):
        seen = tower(pixels_BCHW, output_hidden_states=True, output_attentions=bool(layers), return_dict=True)
    chosen = config.vision_feature_layer
    indices = [chosen] if isinstance(chosen, int) else chosen
    hidden_BND = torch.cat([seen.hidden_states[index] for index in indices], dim=-1)
    first = 1 if _has_class_token(model) else 0
    heads = config.vision_config.num_attention_heads
    return Seen(
        hidden_BND[:, first:] if _drops_class_token(model) else hidden_BND,
        {layer: _scores(seen.attentions[layer], bool(first)) for layer in layers},
        {layer: similarity_metric(keys[layer][:, first:], heads) for layer in layers},
    )


def learned_logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits (R, A, vocabulary) and next-token labels (R, A, padded by IGNORED) at learned places.

    The attention mask is always explicit: without it transformers takes every jump in ``position_ids`` for
    the border of a packed sequence and cuts attention there.
    """
    base = _base(model)
    inputs: dict[str, Any] = {}
    if batch.features:
        projected = base.model.multi_modal_projector(torch.stack(batch.features).to(base.dtype))
        per_image: Any = list(projected)  # LLaVA takes one tensor an image; the type says one tensor
        inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=per_image)}
    hidden_RLD = base.model(
        input_ids=batch.input_ids_RL,
        attention_mask=batch.attention_mask_RL,
        position_ids=batch.position_ids_RL,
        use_cache=False,
        **inputs,
    ).last_hidden_state
    place_RA, labels_RA = _learned_places(batch.next_labels_RL)
    hidden_RAD = hidden_RLD.gather(1, place_RA[..., None].expand(-1, -1, hidden_RLD.shape[-1]))
    return base.lm_head(hidden_RAD), labels_RA


def row_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Return each row's mean cross-entropy over its own learned tokens, shape (R,).

    Hugging Face's own loss averages over the whole batch's tokens and so couples rows; this one does not.
    """
    logits_RAV, labels_RA = learned_logits(model, batch)
    loss_RA = nn.functional.cross_entropy(
        logits_RAV.transpose(1, 2).float()
        if logits_RAV.dtype != torch.float64
        else logits_RAV.transpose(1, 2),
        labels_RA,
        ignore_index=IGNORED,
        reduction="none",
    )
    return loss_RA.sum(dim=1) / (labels_RA != IGNORED).sum(dim=1)


@torch.no_grad()
def rows_answered(model: nn.Module, batch: Batch) -> Tensor:
    """Return which rows greedy decoding would answer exactly, end mark included, shape (R,) of booleans."""
    logits_RAV, labels_RA = learned_logits(model, batch)
    return ((logits_RAV.argmax(dim=-1) == labels_RA) | (labels_RA == IGNORED)).all(dim=1)


def _learned_places(next_labels_RL: Tensor) -> tuple[Tensor, Tensor]:
    is_learned_RL = next_labels_RL != IGNORED
    most = int(is_learned_RL.sum(dim=1).max())
    place_RA = is_learned_RL.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return place_RA, next_labels_RL.gather(1, place_RA)


def _scores(attention_BHNN: Tensor, class_token: bool) -> Tensor:
    if class_token:
        return class_token_scores(attention_BHNN)
    return attention_BHNN.mean(dim=(1, 2))


def _base(model: nn.Module) -> Any:
    """Return the LLaVA under a possible PEFT wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _has_class_token(model: nn.Module) -> bool:
    return any(
        name.endswith("class_embedding") for name, _ in _base(model).model.vision_tower.named_parameters()
    )


def _drops_class_token(model: nn.Module) -> bool:
    return bool(_base(model).config.vision_feature_select_strategy == "default")


@contextmanager
def _eager(tower: Any, needed: bool) -> Iterator[None]:
    """Give the tower alone the attention implementation that returns weights."""
    before = tower.config._attn_implementation
    if needed:
        tower.set_attn_implementation("eager")
    try:
        yield
    finally:
        if needed:
            tower.set_attn_implementation(before)


@contextmanager
def _keep_keys(tower: nn.Module, layers: tuple[int, ...], keys: dict[int, Tensor]) -> Iterator[None]:
    def keep(layer: int) -> Any:
        return lambda _module, _given, output: keys.__setitem__(layer, output)

    named = dict(tower.named_modules())
    prefix = next((name for name in named if name.endswith("encoder.layers")), None)
    if prefix is None:
        raise ValueError(
            f"vision tower {type(tower).__name__} has no encoder layers to score: tokens.select must be all"
        )
    handles = [
        named[f"{prefix}.{layer}.self_attn.k_proj"].register_forward_hook(keep(layer)) for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
