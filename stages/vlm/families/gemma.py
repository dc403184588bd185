"""PaliGemma and Gemma 3: a SigLIP tower, projected slots, attention that goes both ways in a part of a row.

PaliGemma reads image and question both ways and says the answer word by word; Gemma 3 reads the slots of each
picture both ways. What stays of a picture stands together, so this holds for pruned rows too.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stages.records.encoded import Batch
from stages.records.row import IMAGE, Message
from stages.records.token_rows import IGNORED
from stages.vlm.attention import watched
from stages.vlm.families.family import Family, on_device, seen_in_squares, unwrapped
from stages.vlm.seen import Frame, Prepared, Seen


class _Siglip(Family):
    """A SigLIP tower whose patches are projected, averaged over squares or one by one."""

    def tower(self, model: nn.Module) -> Any:
        """Return the vision tower."""
        return unwrapped(model).model.vision_tower

    def across(self, model: nn.Module) -> int:
        """Return the number of slots along the side of a picture."""
        return self._side(model)

    def _side(self, model: nn.Module) -> int:
        vision = unwrapped(model).config.vision_config
        return int(vision.image_size // vision.patch_size)

    def slots_per_image(self, model: nn.Module) -> int | None:
        """Return the number of slots of an unpruned image."""
        return self.across(model) ** 2

    @torch.no_grad()
    def look(self, model: nn.Module, prepared: Prepared, layers: tuple[int, ...]) -> Seen:
        """Run tower and projector on all pictures of one image."""
        base, tower = unwrapped(model), self.tower(model)
        pixels = on_device(model, prepared.inputs)["pixel_values"]
        with watched(tower, self.attention_modules(model) if layers else [], layers, False) as found:
            slots_TD = base.model.get_image_features(pixel_values=pixels).pooler_output.flatten(0, 1)
        side = self._side(model)
        return seen_in_squares(slots_TD, prepared.frame, side, side // self.across(model), found, layers)

    def entering(self, base: Any, features: Sequence[Tensor]) -> BaseModelOutputWithPooling:
        """Return all slots as one tensor, (1, S of all images, D): these models take no list."""
        return BaseModelOutputWithPooling(pooler_output=torch.cat(list(features))[None])


class PaliGemma(_Siglip):
    """PaliGemmaForConditionalGeneration: one question, one answer, no chat template."""

    model_types = ("paligemma",)

    def render(self, processor: Any, messages: Sequence[Message], generation: bool) -> str:
        """Write images, begin mark, question, line break and, behind them, the answer and its end mark."""
        roles = [message.role for message in messages]
        if roles[:1] != ["user"] or roles[1:] not in ([], ["assistant"]):
            raise ValueError(
                f"PaliGemma reads one question and one answer, and a record has the turns {roles}: split it"
            )
        question = messages[0].content
        marks = processor.image_token * question.count(IMAGE)
        begin, end = processor.tokenizer.bos_token, processor.tokenizer.eos_token
        text = f"{marks}{begin}{question.replace(IMAGE, ' ').strip()}\n"
        return text + (f"{messages[1].content.strip()}{end}" if len(messages) > 1 else "")

    def positions(
        self, model: nn.Module, input_ids: Sequence[int], frames: Sequence[Frame]
    ) -> list[list[int]]:
        """Count from 1."""
        return [list(range(1, len(input_ids) + 1))]

    def beside(self, base: Any, batch: Batch) -> dict[str, Tensor]:
        """Tell the answer, which is read word by word, from what comes before it."""
        is_learned_RL = batch.next_labels_RL != IGNORED
        answers_RL = pad(is_learned_RL.cumsum(dim=1) > 0, (1, -1))
        return {"token_type_ids": answers_RL.long()}

    def logits(self, base: Any, hidden_RAD: Tensor) -> Tensor:
        """Return logits, softly capped where the model's configuration says so."""
        logits_RAV = super().logits(base, hidden_RAD)
        cap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
        return logits_RAV if cap is None else (logits_RAV / cap).tanh() * cap


class Gemma3(_Siglip):
    """Gemma3ForConditionalGeneration."""

    model_types = ("gemma3",)

    def across(self, model: nn.Module) -> int:
        """Return the number of slots along the side of a picture."""
        return isqrt(int(unwrapped(model).config.mm_tokens_per_image))

    def slot_mark(self, processor: Any) -> str:
        """Return the text of one slot, which is not the mark that templates write."""
        return str(processor.tokenizer.image_token)

    def beside(self, base: Any, batch: Batch) -> dict[str, Tensor]:
        """Tell which places are slots: those of one picture see each other both ways."""
        return {"token_type_ids": (batch.input_ids_RL == base.config.image_token_id).long()}
