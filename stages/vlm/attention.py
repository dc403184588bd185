"""Importance and similarity of patches, read off the attention of chosen layers of a vision tower.

The tower runs with fused attention. For the chosen layers alone the attention map is computed beside it, one
layer and a few queries at a time: memory grows neither with depth nor with the square of the patches.

Shapes: B pictures, H heads, N tokens of one picture (a class token first, if there is one), Q queries at
once, C width of a head, P patches of all pictures.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from stages.vlm.pruning import class_token_scores

_NAME = "watched_by_dualpriv"
_QUERIES = 512


@dataclass
class Watched:
    """What attention told of every layer that was watched."""

    class_token: bool
    layer_of: dict[int, int]
    """Layer by identity of its attention module."""
    scores: dict[int, list[Tensor]] = field(default_factory=dict)
    """(P of one call,) in order of calls: towers with windows or packed images attend piece by piece."""
    metrics: dict[int, list[Tensor]] = field(default_factory=dict)
    work: dict[int, int] = field(default_factory=dict)
    """Multiplications that a layer's map took."""

    def note(
        self, module: nn.Module, query_BHNC: Tensor, key_BHNC: Tensor, mask: Any, scaling: float
    ) -> None:
        """Keep what one call of attention says of its patches, if its layer is watched."""
        layer = self.layer_of.get(id(module))
        if layer is None:
            return
        first = 1 if self.class_token else 0
        score = _from_class_token if self.class_token else received
        metric_BNC = normalize(_wide(key_BHNC[:, :, first:]).mean(dim=1), dim=-1)
        self.scores.setdefault(layer, []).append(score(query_BHNC, key_BHNC, mask, scaling).flatten())
        self.metrics.setdefault(layer, []).append(metric_BNC.flatten(0, 1))
        queries = query_BHNC[0, 0].numel() if not self.class_token else query_BHNC.shape[-1]
        self.work[layer] = self.work.get(layer, 0) + queries * key_BHNC[..., 0].numel()

    def score(self, layer: int) -> Tensor:
        """Return the importance of every patch by one layer, shape (P,)."""
        return torch.cat(self.scores[layer])

    def metric(self, layer: int) -> Tensor:
        """Return what tells which patches are alike, (P, C): the key averaged over heads, of length 1."""
        return torch.cat(self.metrics[layer])


_watching: list[Watched] = []


@contextmanager
def watched(
    tower: Any, modules: Sequence[nn.Module], layers: Sequence[int], class_token: bool
) -> Iterator[Watched]:
    """Watch the attention ``modules`` of ``layers`` while the tower runs; no layer: nothing is changed."""
    found = Watched(class_token, {id(modules[layer]): layer for layer in layers})
    if not layers:
        yield found
        return
    before = tower.config._attn_implementation
    tower.set_attn_implementation(_NAME)
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.pop()
        tower.set_attn_implementation(before)


def received(query_BHNC: Tensor, key_BHNC: Tensor, mask: Any, scaling: float) -> Tensor:
    """Return the attention that every token receives from all, averaged over heads, shape (B, N), mean 1.

    For towers without a class token (methods, section 1, our own decision). Pieces of unequal length stay
    comparable, for each is measured by its own average. Half precision is widened: patches that lie close
    together would be tied.
    """
    tokens = query_BHNC.shape[2]
    total_BN = _wide(torch.zeros_like(query_BHNC[:, 0, :, 0]))
    for start in range(0, tokens, _QUERIES):
        some = slice(start, start + _QUERIES)
        map_BHQN = _map(query_BHNC[:, :, some], key_BHNC, _of_queries(mask, some), scaling)
        total_BN += map_BHQN.mean(dim=1).sum(dim=1)
    return total_BN


def _from_class_token(query_BHNC: Tensor, key_BHNC: Tensor, mask: Any, scaling: float) -> Tensor:
    first = slice(0, 1)
    return class_token_scores(_map(query_BHNC[:, :, first], key_BHNC, _of_queries(mask, first), scaling))


def _map(query_BHQC: Tensor, key_BHNC: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    logits_BHQN = (_wide(query_BHQC) @ _wide(key_BHNC).transpose(2, 3)) * scaling
    if mask is not None:
        lowest = torch.finfo(logits_BHQN.dtype).min
        logits_BHQN = (
            logits_BHQN.masked_fill(~mask, lowest) if mask.dtype == torch.bool else logits_BHQN + mask
        )
    return logits_BHQN.softmax(dim=-1)


def _wide(values: Tensor) -> Tensor:
    """Return values in float32, or as they are where that is no wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _of_queries(mask: Tensor | None, some: slice) -> Tensor | None:
    return mask if mask is None or mask.shape[2] == 1 else mask[:, :, some]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as the fused implementation does, and let whoever watches take note."""
    scaling = settings.get("scaling")
    if _watching:
        own = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        _watching[-1].note(module, query, key, attention_mask, own)
    fused: Callable[..., tuple[Tensor, Tensor | None]] = sdpa_attention_forward
    return fused(module, query, key, value, attention_mask, **settings)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
