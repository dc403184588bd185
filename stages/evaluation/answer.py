"""Answer a question about an image as the model was trained to: the same pruned tokens and positions.

Shapes: R = 1 row, L places, S kept visual slots, D tower width, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch

from stages.records.encoded import Batch
from stages.records.row import IMAGE, Message
from stages.records.token_rows import IGNORED
from stages.vlm.encoder import encode_image, require_rule
from stages.vlm.loaded import Loaded
from stages.vlm.seen import KeptImage
from stages.vlm.selection import Rule
from stages.vlm.tokens import TokenSequence, prune_slots, tokenise_prompt

MAX_NEW_TOKENS = 64


def answer(loaded: Loaded, image: bytes, question: str, rule: Rule) -> str:
    """Return the greedy answer of a model that sees what ``rule`` keeps of the image.

    Edge cases: an empty question, and one that holds an image mark, are a ValueError; an answer longer than
    ``MAX_NEW_TOKENS`` is cut there.
    """
    prompt, seen = prompt_of(loaded, image, question, rule)
    tokens = greedy_tokens(loaded, prompt, seen, MAX_NEW_TOKENS)
    text: str = loaded.processor.tokenizer.decode(tokens, skip_special_tokens=True)
    return text.strip()


def prompt_of(loaded: Loaded, image: bytes, question: str, rule: Rule) -> tuple[TokenSequence, KeptImage]:
    """Return the pruned prompt, at the positions of the unpruned one, and what is kept of the image."""
    if not question.strip():
        raise ValueError("the question is empty: ask something about the image")
    for mark in (IMAGE, loaded.processor.image_token):
        if mark in question:
            raise ValueError(f"the question must not contain '{mark}': its one image stands before it")
    require_rule(loaded, rule)
    seen = encode_image(loaded, image, rule)
    whole = tokenise_prompt([Message("user", IMAGE + question)], loaded, [seen.frame])
    return prune_slots(whole, loaded.model.config.image_token_id, [seen]), seen


def greedy_tokens(loaded: Loaded, prompt: TokenSequence, seen: KeptImage, at_most: int) -> list[int]:
    """Return the most likely next token again and again, up to and with the end mark.

    Guarantee: every token is the argmax of the forward pass that training and evaluation use, so that
    ``rows_answered`` holds for a row exactly when this returns the row's labels. The whole sequence is read
    again for every token: slower than a cache of keys and values, and nothing can differ.

    Edge cases: an image slot is never said, for it would ask for features of an image that is not there.
    """
    ends, next_token = loaded.end_marks(), _next_token(loaded, prompt, seen)
    found: list[int] = []
    while len(found) < at_most and not (found and found[-1] in ends):
        found.append(next_token(found))
    return found


def _next_token(loaded: Loaded, prompt: TokenSequence, seen: KeptImage) -> Callable[[Sequence[int]], int]:
    model, features = loaded.model, (seen.features_SD,)
    image_token_id = model.config.image_token_id

    @torch.no_grad()
    def next_token(said: Sequence[int]) -> int:
        input_ids_RL = torch.tensor([[*prompt.input_ids, *said]])
        axes = [[*axis, *range(axis[-1] + 1, axis[-1] + 1 + len(said))] for axis in prompt.position_ids]
        next_labels_RL = torch.full_like(input_ids_RL, IGNORED)
        next_labels_RL[0, len(prompt.input_ids) - 1 :] = 0  # no label: it says where the answer begins
        batch = Batch(
            input_ids_RL,
            torch.ones_like(input_ids_RL),
            torch.tensor(axes)[:, None],
            next_labels_RL,
            features,
        )
        logits_RAV, _ = loaded.family.learned_logits(model, batch.to(model.device))
        logits_RAV[..., image_token_id] = -torch.inf
        return int(logits_RAV[0, -1].argmax())

    return next_token
