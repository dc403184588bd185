"""The most likely next token again and again, for many prompts at once.

Shapes: R rows, L places, A axes of a position, S kept visual slots, D width of a slot, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.records.encoded import Batch
from stages.records.token_rows import IGNORED
from stages.vlm.encoder import image_token_id, pad_token_id
from stages.vlm.loaded import Loaded
from stages.vlm.tokens import TokenSequence


@dataclass(frozen=True)
class Prompt:
    """A pruned conversation that waits for the assistant's turn, and what is kept of its images."""

    tokens: TokenSequence
    features: tuple[Tensor, ...]
    """One (S, D) tensor an image, in the order of the slots."""


def greedy_answers(loaded: Loaded, prompts: Sequence[Prompt], at_most: int) -> list[list[int]]:
    """Return for each prompt the most likely next tokens, up to and with an end mark, ``at_most`` of them.

    Guarantee: every token is the argmax of the forward pass that training and evaluation use, and each
    answer is the one that the prompt gets alone. Other rows of a batch change a row by rounding only; where
    the two best tokens are nearer to each other than half of the digits that logits have, the batch does not
    decide and the prompt is read again alone. The whole sequence is read again for every token: slower than
    a cache of keys and values, and nothing can differ.

    Edge cases: no prompts give no answers; an image slot is never said, for it would ask for features of an
    image that is not there.
    """
    ends = loaded.end_marks()
    found: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts))) if at_most else []
    while running:
        logits_RV = next_logits(loaded, [prompts[row] for row in running], [found[row] for row in running])
        is_sure = [True] if len(running) == 1 else _is_clear(logits_RV).tolist()
        best = logits_RV.argmax(dim=-1).tolist()
        going = []
        for row, token, sure in zip(running, best, is_sure, strict=True):
            if not sure:
                [found[row]] = greedy_answers(loaded, [prompts[row]], at_most)
                continue
            found[row].append(token)
            if token not in ends and len(found[row]) < at_most:
                going.append(row)
        running = going
    return found


def _is_clear(logits_RV: Tensor) -> Tensor:
    """Return in which rows the best token is so by more than rounding could change, (R,) booleans."""
    wide_RV = logits_RV.double()
    best = wide_RV.topk(2, dim=-1).values
    size_R = wide_RV.masked_fill(wide_RV.isinf(), 0).abs().amax(dim=-1)
    is_clear_R: Tensor = best[:, 0] - best[:, 1] > torch.finfo(logits_RV.dtype).eps ** 0.5 * size_R
    return is_clear_R


@torch.no_grad()
def next_logits(loaded: Loaded, prompts: Sequence[Prompt], said: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits of what comes after each prompt and what was ``said`` behind it, (R, V)."""
    batch = _batch(prompts, said, pad_token_id(loaded))
    logits_RAV, labels_RA = loaded.family.learned_logits(loaded.model, batch.to(loaded.model.device))
    last_R = (labels_RA != IGNORED).sum(dim=1) - 1
    logits_RV = logits_RAV[torch.arange(len(last_R), device=last_R.device), last_R]
    logits_RV[:, image_token_id(loaded)] = -torch.inf
    return logits_RV


def _batch(prompts: Sequence[Prompt], said: Sequence[Sequence[int]], filler: int) -> Batch:
    """Return rows padded on the right, with a label wherever the answer's next token is asked for.

    New tokens stand at the positions after the last one. Labels are no tokens: they say where the answer
    begins.
    """
    rows = [(*prompt.tokens.input_ids, *more) for prompt, more in zip(prompts, said, strict=True)]
    length = max(map(len, rows))
    axes = len(prompts[0].tokens.position_ids)
    input_ids_RL = torch.full((len(rows), length), filler)
    mask_RL, labels_RL = torch.zeros_like(input_ids_RL), torch.full_like(input_ids_RL, IGNORED)
    positions_ARL = torch.zeros(axes, len(rows), length, dtype=torch.int64)
    for row, (ids, prompt) in enumerate(zip(rows, prompts, strict=True)):
        input_ids_RL[row, : len(ids)] = torch.tensor(ids)
        mask_RL[row, : len(ids)] = 1
        before = len(prompt.tokens.input_ids)
        labels_RL[row, before - 1 : len(ids)] = 0
        for axis, places in enumerate(prompt.tokens.position_ids):
            after = range(places[-1] + 1, places[-1] + 1 + len(ids) - before)
            positions_ARL[axis, row, : len(ids)] = torch.tensor([*places, *after])
    features = tuple(feature for prompt in prompts for feature in prompt.features)
    return Batch(input_ids_RL, mask_RL, positions_ARL, labels_RL, features)
