"""Bring reversible layers back to the frozen model they were put into, by distillation on public records.

Shapes: R rows, L places, D width of the language model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stages.core.progress import progress
from stages.records.encoded import EncodedSet, collate
from stages.trainable.reversible_chain import Chain, chain_of, without_adapters
from stages.trainable.settings import Realign
from stages.vlm.loaded import Loaded


def realign(
    loaded: Loaded, encoded: EncodedSet, settings: Realign, seed: int, micro_batch: int
) -> dict[str, float]:
    """Train the adapters to give the frozen model's last hidden states on ``encoded``, which is public.

    Adam on the mean square of the difference over that of the frozen states; the rows of a step are drawn by
    the public ``seed``. How far the start was off before and after is kept with the adapters.

    Guarantee: the weights are a function of the arguments alone, none of which holds a private record.
    """
    chain = chain_of(loaded.model)
    assert chain is not None
    weights = [weight for layer in chain.layers for weight in layer.weights()]
    before = _deviation(loaded, chain, encoded, micro_batch)
    optimizer = torch.optim.Adam(weights, lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    with progress("realign", settings.steps) as advance:
        for step in range(settings.steps):
            rows = torch.randperm(len(encoded.rows), generator=generator)[: settings.batch].tolist()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 - step / settings.steps)
            off, size = _off(loaded, chain, encoded, rows)
            for weight, gradient in zip(weights, torch.autograd.grad(off / size, weights), strict=True):
                weight.grad = gradient
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            advance(step + 1)
    after = _deviation(loaded, chain, encoded, micro_batch)
    chain.deviation = {"before": before, "after": after}
    return chain.deviation


@torch.no_grad()
def _deviation(loaded: Loaded, chain: Chain, encoded: EncodedSet, micro_batch: int) -> float:
    """Return the norm of the difference of the last hidden states over that of the frozen ones."""
    off, size = 0.0, 0.0
    for start in range(0, len(encoded.rows), micro_batch):
        rows = range(start, min(start + micro_batch, len(encoded.rows)))
        parts = _off(loaded, chain, encoded, rows)
        off, size = off + float(parts[0]), size + float(parts[1])
    return float((off / size) ** 0.5)


def _off(loaded: Loaded, chain: Chain, encoded: EncodedSet, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the squared norms of the difference and of the frozen hidden states, at real places."""
    model: Any = loaded.model
    batch = collate(encoded, rows).to(model.device)
    is_real_RL = batch.attention_mask_RL.bool()
    with torch.no_grad(), without_adapters(chain):
        frozen = loaded.family.hidden(model, batch)[is_real_RL].double()
    found = loaded.family.hidden(model, batch)[is_real_RL].double()
    return (found - frozen).square().sum(), frozen.square().sum()
