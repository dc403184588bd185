"""What every family of vision-language models shares, and what each does its own way.

A family is one module with a subclass of ``Family`` and one line in ``stages/vlm/family.py``. A subclass says
where its vision tower is and how patches become slots (``look``), and, where its kind differs from most: how
an image is prepared, how text is written without a chat template, what positions tokens have, how features
enter the language model, and what else that takes.

Shapes: T slots of one image, P of them patches, D width of a slot, E width of the similarity metric, R rows,
L places, A learned places of the row with most, V vocabulary, X axes of a position, N patches of one picture.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from peft import PeftModel
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, normalize
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stages.records.encoded import Batch
from stages.records.row import Message
from stages.records.token_rows import IGNORED
from stages.vlm.attention import Watched
from stages.vlm.messages import messages_of
from stages.vlm.seen import Box, Frame, Prepared, Seen

_ATTENTION = re.compile(r"(?:^|\.)(?:encoder\.layers|blocks)\.(\d+)\.(?:self_attn|attn)$")


class Family(ABC):
    """One family of vision-language models of transformers, frozen; all methods are pure."""

    model_types: ClassVar[tuple[str, ...]]
    """``model_type`` of the configurations that it serves."""
    LANGUAGE_MODEL: ClassVar[str] = r".*language_model\..*"
    """Matches modules of the language model and none of the tower; bare names such as q_proj match both."""

    # -- the vision side

    @abstractmethod
    def tower(self, model: nn.Module) -> Any:
        """Return the vision tower."""

    @abstractmethod
    def look(self, model: nn.Module, prepared: Prepared, layers: tuple[int, ...]) -> Seen:
        """Run the frozen vision side on one image; scores and metrics for ``layers`` only, none if empty.

        Guarantee: a function of that image alone.
        """

    @abstractmethod
    def slots_per_image(self, model: nn.Module) -> int | None:
        """Return the number of slots of every unpruned image; None where it depends on the image."""

    def slot_width(self, model: nn.Module) -> int:
        """Return D, the width of a slot as it is encoded; an outline of the model is enough."""
        return int(unwrapped(model).config.get_text_config().hidden_size)

    def language(self, model: nn.Module) -> Any:
        """Return the language model without its head: its decoder layers are ``.layers``."""
        return unwrapped(model).model.language_model

    def forget_tower(self, model: nn.Module) -> None:
        """Let go of the vision tower: who has the features of every image looks at none again."""
        tower = self.tower(model)
        for parent in [*unwrapped(model).modules()]:
            for name, child in parent.named_children():
                if child is tower:
                    setattr(parent, name, None)

    def attention_modules(self, model: nn.Module) -> list[nn.Module]:
        """Return the attention of every layer of the tower, first to last; other towers are a ValueError."""
        tower = self.tower(model)
        found = {
            int(match[1]): module
            for name, module in tower.named_modules()
            if (match := _ATTENTION.search(name))
        }
        if not found:
            raise ValueError(
                f"vision tower {type(tower).__name__} has no encoder layers to score: tokens.select must be "
                "all"
            )
        return [found[layer] for layer in sorted(found)]

    def scored_layers(self, model: nn.Module) -> tuple[int, ...]:
        """Return the encoder layers whose attention can score patches, first to last."""
        return tuple(range(len(self.attention_modules(model))))

    def require_prunable(self, model: nn.Module) -> None:
        """Refuse a model whose visual tokens cannot be told apart by patches."""
        self.attention_modules(model)

    def prepare(self, processor: Any, picture: Image.Image) -> Prepared:
        """Prepare one RGB image as the model's own processor does, and say how a row writes it."""
        settings = getattr(processor, "images_kwargs", {})
        inputs = processor.image_processor(self.nested(picture), return_tensors="pt", **settings)
        text = str(processor.replace_image_token(inputs, 0))
        mark = self.slot_mark(processor)
        runs = [len(run) // len(mark) for run in re.findall(f"(?:{re.escape(mark)})+", text)]
        tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        grid = self.grid(inputs)
        return Prepared(tensors, Frame(text, tuple(runs), grid, self.boxes(processor, picture, grid)))

    def nested(self, picture: Image.Image) -> Any:
        """Return one image as the image processor takes the images of a batch."""
        return [picture]

    def grid(self, inputs: Mapping[str, Any]) -> tuple[int, ...]:
        """Return how an image was divided, where ``positions`` or ``boxes`` need it."""
        return ()

    def boxes(self, processor: Any, picture: Image.Image, grid: tuple[int, ...]) -> tuple[Box, ...]:
        """Return which part of the image each panel shows; none: every panel shows all of it."""
        return ()

    # -- the text side

    def slot_mark(self, processor: Any) -> str:
        """Return the text of one slot."""
        return str(processor.image_token)

    def render(self, processor: Any, messages: Sequence[Message], generation: bool) -> str:
        """Write a conversation with one image mark an image; ``generation`` asks for the assistant's turn."""
        return str(
            processor.apply_chat_template(
                messages_of(messages), tokenize=False, add_generation_prompt=generation
            )
        )

    def require_row(self, model: nn.Module, images: int) -> None:  # noqa: B027
        """Refuse a row with as many images, where the family shows each otherwise than alone."""

    def positions(
        self, model: nn.Module, input_ids: Sequence[int], frames: Sequence[Frame]
    ) -> list[list[int]]:
        """Return the position of every token of an unpruned row along each axis, X lists of L."""
        return [list(range(len(input_ids)))]

    # -- the language side

    def entering(self, base: Any, features: Sequence[Tensor]) -> BaseModelOutputWithPooling:
        """Return kept slots as the model takes what its vision side made, one (S, D) tensor an image."""
        entered: Any = BaseModelOutputWithPooling(pooler_output=list(features))  # type: ignore[arg-type]
        return entered  # type: ignore[no-any-return]

    def beside(self, base: Any, batch: Batch) -> dict[str, Tensor]:
        """Return what the model takes beside tokens, mask, positions and images."""
        return {}

    def inputs(self, base: Any, batch: Batch) -> dict[str, Any]:
        """Return the arguments of the model's forward pass for a batch.

        The attention mask is always explicit: without it transformers takes every jump in ``position_ids``
        for the border of a packed sequence and cuts attention there.
        """
        positions = batch.position_ids_ARL
        given: dict[str, Any] = {
            "input_ids": batch.input_ids_RL,
            "attention_mask": batch.attention_mask_RL,
            "position_ids": positions[0] if len(positions) == 1 else positions,
            **self.beside(base, batch),
        }
        if batch.features:
            given["mm_encoder_outputs"] = {"image": self.entering(base, batch.features)}
        return given

    def logits(self, base: Any, hidden_RAD: Tensor) -> Tensor:
        """Return the logits of what the language model made of some places."""
        logits_RAV: Tensor = base.lm_head(hidden_RAD)
        return logits_RAV

    def hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what the language model's head reads at every place, (R, L, D)."""
        base = unwrapped(model)
        hidden_RLD: Tensor = base.model(**self.inputs(base, batch), use_cache=False).last_hidden_state
        return hidden_RLD

    def learned_logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (R, A, V) and next-token labels (R, A, padded by IGNORED) at learned places."""
        base, hidden_RLD = unwrapped(model), self.hidden(model, batch)
        place_RA, labels_RA = _learned_places(batch.next_labels_RL)
        hidden_RAD = hidden_RLD.gather(1, place_RA[..., None].expand(-1, -1, hidden_RLD.shape[-1]))
        return self.logits(base, hidden_RAD), labels_RA

    def row_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return each row's mean cross-entropy over its own learned tokens, shape (R,).

        Hugging Face's own loss averages over the whole batch's tokens and so couples rows; this one does not.
        """
        return losses_of(*self.learned_logits(model, batch))

    @torch.no_grad()
    def rows_answered(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return which rows greedy decoding would answer exactly, end mark included, (R,) booleans."""
        return answered_of(*self.learned_logits(model, batch))


def losses_of(logits_RAV: Tensor, labels_RA: Tensor) -> Tensor:
    """Return each row's mean cross-entropy over its own learned tokens, shape (R,)."""
    wide_RAV = logits_RAV if logits_RAV.dtype == torch.float64 else logits_RAV.float()
    loss_RA = cross_entropy(wide_RAV.transpose(1, 2), labels_RA, ignore_index=IGNORED, reduction="none")
    return loss_RA.sum(dim=1) / (labels_RA != IGNORED).sum(dim=1)


def answered_of(logits_RAV: Tensor, labels_RA: Tensor) -> Tensor:
    """Return which rows greedy decoding would answer exactly, end mark included, (R,) booleans."""
    return ((logits_RAV.argmax(dim=-1) == labels_RA) | (labels_RA == IGNORED)).all(dim=1)


def unwrapped(model: nn.Module) -> Any:
    """Return the model under a possible PEFT wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def on_device(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return inputs where the model is, numbers with a fraction in its precision."""
    base = unwrapped(model)
    return {
        name: value.to(base.device, base.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def require_slots(slots: int, frame: Frame) -> None:
    """Refuse an image whose text has not as many slots as the model made features of it."""
    if slots != sum(frame.runs):
        raise ValueError(
            f"the model's processor writes {sum(frame.runs)} slots for an image of which the model makes "
            f"{slots} features: processor_config.json and config.json do not fit together"
        )


def pooled_patches(values_NE: Tensor, side: int, factor: int) -> Tensor:
    """Average what is known of patches over squares of ``factor`` x ``factor``, picture by picture.

    Pictures are ``side`` x ``side`` patches, one behind the other, row by row; so are the squares.
    """
    if factor == 1:
        return values_NE
    width = values_NE.shape[1]
    pictures = values_NE.view(-1, side, side, width).permute(0, 3, 1, 2)
    return avg_pool2d(pictures, factor).permute(0, 2, 3, 1).reshape(-1, width)


def seen_in_squares(
    slots_TD: Tensor, frame: Frame, side: int, factor: int, found: Watched, layers: Sequence[int]
) -> Seen:
    """Return what was seen where each slot is a square of ``factor`` x ``factor`` patches.

    Pictures are ``side`` x ``side`` patches; ``found`` is what was noted of them in ``layers``.
    """
    require_slots(len(slots_TD), frame)
    across = side // factor
    return Seen(
        slots_TD,
        torch.arange(len(slots_TD), device=slots_TD.device),
        ((across, across),) * (len(slots_TD) // across**2),
        {layer: pooled_patches(found.score(layer)[:, None], side, factor)[:, 0] for layer in layers},
        {layer: normalize(pooled_patches(found.metric(layer), side, factor), dim=-1) for layer in layers},
        found.work,
    )


def _learned_places(next_labels_RL: Tensor) -> tuple[Tensor, Tensor]:
    is_learned_RL = next_labels_RL != IGNORED
    most = int(is_learned_RL.sum(dim=1).max())
    place_RA = is_learned_RL.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return place_RA, next_labels_RL.gather(1, place_RA)
