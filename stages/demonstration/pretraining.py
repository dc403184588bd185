"""Pre-train the demonstration backbone on public images and questions.

Two losses, both from the first step. The language loss is the mean over rows of a row's mean over its
answer and end tokens. The class loss is an auxiliary linear read-out, thrown away afterwards, of the
tower's class token and of the mean of its patches. Without the first the class token receives no gradient
(LLaVA drops it), and its attention would not say which patches matter; the second makes what the language
model gets linearly separable.

In most steps the language model sees pruned images, so that a fine-tuning run may prune too.

Shapes: B images, R rows (questions), S slots of an image, T patches, D hidden width of the tower, E width of
a head, L tokens of a row, C channels, H and W pixels, V vocabulary, N = 1 + T, 2 = answer and end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, pi
from typing import TypeVar

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy, layer_norm
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stages.demonstration.backbone import Size, build_backbone
from stages.demonstration.jitter import Jitter, distort
from stages.demonstration.lessons import Lessons, arrange
from stages.demonstration.processor import END, Words
from stages.vlm.pruning import Kept, class_token_scores, dominant_contextual, keep_all, similarity_metric

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, besides lessons and seed: section ``pretrain`` of params.yaml."""

    size: Size
    steps: int
    digits_per_step: int
    scenes_per_step: int
    questions_per_image: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    class_loss_weight: float
    unpruned_share: float
    """Share of steps in which the language model sees every patch."""
    budgets: tuple[tuple[int, int], ...]
    """Dominant and contextual slots; a pruned step draws one pair."""
    scoring_layers: tuple[int, ...]
    """Tower layers whose class-token attention ranks the patches; a pruned step draws one."""
    autocast: bool
    """Whether matrix products run in bfloat16."""
    digit_jitter: Jitter
    scene_jitter: Jitter


@dataclass(frozen=True)
class Glance:
    """What the tower makes of a batch of images."""

    patches_BTD: Tensor
    scores_BT: Tensor
    metric_BTE: Tensor
    class_token_BD: Tensor


@dataclass(frozen=True)
class Progress:
    """What is reported after each step: everything here is about public images."""

    done: int
    language_loss: float
    class_loss: float


def pretrain(
    lessons: Lessons, vocabulary: Words, recipe: Recipe, seed: int, report: Callable[[Progress], None]
) -> LlavaForConditionalGeneration:
    """Build a backbone, train all its weights and return it."""
    generator = Generator().manual_seed(seed)
    model = build_backbone(recipe.size, vocabulary, seed)
    model.set_attn_implementation("eager")
    width = model.config.vision_config.hidden_size
    heads_2VD = torch.nn.Parameter(0.02 * torch.randn(2, len(vocabulary), width, generator=generator))
    optimizer = _optimizer([*model.parameters(), heads_2VD], recipe)
    model.train()
    for step, (images_B, row_R, of_R) in enumerate(_batches(lessons, recipe, generator)):
        _set_learning_rate(optimizer, recipe, step)
        pixels_BCHW = _pixels(lessons, images_B, recipe, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast):
            layer = _draw(recipe.scoring_layers, generator)
            glance = look(model, pixels_BCHW, layer)
            kept = _prune(glance, recipe, generator)
            language_loss = answer_loss(
                model, kept, of_R, lessons.question_RW[row_R], lessons.answer_R[row_R], vocabulary
            )
        class_loss = _class_loss(glance, heads_2VD, lessons.label_B[images_B])
        optimizer.zero_grad()
        (language_loss + recipe.class_loss_weight * class_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        report(Progress(step + 1, language_loss.item(), class_loss.item()))
    return model.eval()


def look(model: LlavaForConditionalGeneration, pixels_BCHW: Tensor, layer: int) -> Glance:
    """Run the tower, whose attention must be eager, and keep what LLaVA's projector and the pruning need."""
    tower, keys = model.model.vision_tower, []
    attention = tower.encoder.layers[layer].self_attn
    hook = attention.k_proj.register_forward_hook(lambda _module, _inputs, output: keys.append(output))
    seen = tower(pixels_BCHW, output_hidden_states=True, output_attentions=True)
    hook.remove()
    patches_BTD = seen.hidden_states[model.config.vision_feature_layer][:, 1:]
    metric_BTE = similarity_metric(keys[0][:, 1:].detach(), attention.num_heads)
    scores_BT = class_token_scores(seen.attentions[layer].detach())
    return Glance(patches_BTD, scores_BT, metric_BTE, seen.pooler_output)


def answer_loss(
    model: LlavaForConditionalGeneration,
    kept: Kept,
    image_of_row_R: Tensor,
    question_RW: Tensor,
    answer_R: Tensor,
    vocabulary: Words,
) -> Tensor:
    """Return the language loss of rows about pruned images: the mean over rows of their means.

    The attention mask is always explicit: without one, transformers takes every jump in the position ids for
    the border of a packed sequence and cuts attention there.
    """
    slots_BSD = model.model.multi_modal_projector(kept.features_BSD)
    tokens = model.config.image_seq_length
    rows = arrange(question_RW, answer_R, kept.source_BS[image_of_row_R], tokens, vocabulary)
    hidden_RLD = model.model(
        input_ids=rows.input_ids_RL,
        attention_mask=rows.attention_mask_RL,
        position_ids=rows.position_ids_RL,
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=[*slots_BSD[image_of_row_R]])},
        use_cache=False,
    ).last_hidden_state
    last_R2 = rows.assistant_R[:, None] + torch.arange(2)
    hidden_R2D = hidden_RLD.gather(1, last_R2[..., None].expand(-1, -1, hidden_RLD.shape[-1]))
    target_R2 = torch.stack([answer_R, torch.full_like(answer_R, vocabulary.index(END))], dim=1)
    return cross_entropy(model.lm_head(hidden_R2D).float().flatten(0, 1), target_R2.flatten())


def _class_loss(glance: Glance, heads_2VD: Tensor, label_B: Tensor) -> Tensor:
    """Return the mean cross-entropy of naming images by the class token, and by the mean of their patches."""
    mean_BD = glance.patches_BTD.float().mean(dim=1)
    seen_2BD = torch.stack([glance.class_token_BD.float(), layer_norm(mean_BD, mean_BD.shape[-1:])])
    names_2BV = seen_2BD @ heads_2VD.transpose(1, 2)
    return cross_entropy(names_2BV.flatten(0, 1), label_B.repeat(2))


def _batches(
    lessons: Lessons, recipe: Recipe, generator: Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield, for every step, image numbers, row numbers and each row's image within the batch.

    Digits and scenes come in fixed numbers; images and their questions are drawn with replacement.
    """
    pools = [lessons.is_digit_B.nonzero()[:, 0], (~lessons.is_digit_B).nonzero()[:, 0]]
    first_B = torch.searchsorted(lessons.image_of_row_R, torch.arange(len(lessons.label_B)))
    rows_B = torch.bincount(lessons.image_of_row_R)
    for _ in range(recipe.steps):
        images_B = torch.cat(
            [
                pool[torch.randint(len(pool), (count,), generator=generator)]
                for pool, count in zip(pools, (recipe.digits_per_step, recipe.scenes_per_step), strict=True)
                if count
            ]
        )
        of_R = torch.arange(len(images_B)).repeat_interleave(recipe.questions_per_image)
        draw_R = torch.rand(len(of_R), generator=generator)
        row_R = first_B[images_B][of_R] + (draw_R * rows_B[images_B][of_R]).long()
        yield images_B, row_R, of_R


def _pixels(lessons: Lessons, images_B: Tensor, recipe: Recipe, generator: Generator) -> Tensor:
    """Distort digits and scenes, each in its way, and normalise as the image processor does: to [-1, 1]."""
    images_BCHW = lessons.images_BCHW[images_B].float() / 255
    digits = recipe.digits_per_step
    distorted_BCHW = torch.cat(
        [
            distort(images_BCHW[:digits], recipe.digit_jitter, generator),
            distort(images_BCHW[digits:], recipe.scene_jitter, generator),
        ]
    )
    return distorted_BCHW * 2 - 1


def _prune(glance: Glance, recipe: Recipe, generator: Generator) -> Kept:
    if torch.rand(1, generator=generator) < recipe.unpruned_share:
        return keep_all(glance.patches_BTD)
    dominant, contextual = _draw(recipe.budgets, generator)
    return dominant_contextual(
        glance.patches_BTD, glance.scores_BT, glance.metric_BTE, dominant=dominant, contextual=contextual
    )


def _draw(choices: tuple[Choice, ...], generator: Generator) -> Choice:
    return choices[int(torch.randint(len(choices), (1,), generator=generator))]


def _optimizer(parameters: list[torch.nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW that decays matrices only."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def _set_learning_rate(optimizer: torch.optim.AdamW, recipe: Recipe, step: int) -> None:
    """Warm up linearly, then follow half a cosine to zero."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    cooled = 0.5 * (1 + cos(pi * step / recipe.steps))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * warm * cooled
