"""Choose which visual tokens the language model sees of one image.

Pure functions of one image's encoder outputs. Nothing here looks at another image: axis B is only a loop.

Shapes: B images, T patch tokens of one image, S = kept slots, D hidden width, E width of the similarity metric,
H attention heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Kept:
    """What the language model gets of each image, slot by slot."""

    features_BSD: Tensor
    source_BS: Tensor
    """Index, in the unpruned patch sequence, of the patch whose position each slot takes."""


def class_token_scores(attention_BHNN: Tensor) -> Tensor:
    """Return the attention that the class token (index 0) pays to every patch, averaged over heads.

    Dual-Priv Pruning, Mechanism 1, steps 1 and 2 (Wei et al. 2025): s_j = S[CLS, j], shape (B, T) with T = N - 1.
    """
    return attention_BHNN[:, :, 0, 1:].mean(dim=1)


def similarity_metric(key_BTD: Tensor, heads: int) -> Tensor:
    """Return attention keys averaged over heads and L2-normalised, shape (B, T, E) with E = D / heads.

    The similarity by which VisionZip's public code assigns tokens to centres.
    """
    return normalize(key_BTD.unflatten(-1, (heads, -1)).mean(dim=-2), dim=-1)


def keep_all(hidden_BTD: Tensor) -> Kept:
    """Keep every patch token, in order."""
    batch, tokens, _ = hidden_BTD.shape
    return Kept(hidden_BTD, torch.arange(tokens, device=hidden_BTD.device).expand(batch, tokens))


def dominant_contextual(
    hidden_BTD: Tensor, scores_BT: Tensor, metric_BTE: Tensor, *, dominant: int, contextual: int
) -> Kept:
    """Keep the ``dominant`` best-scored tokens and fuse the others into ``contextual`` ones.

    Mechanism 1 of Dual-Priv Pruning (Wei et al. 2025, arXiv 2506.07077), where the paper is silent as in VisionZip's
    public code: dominant tokens unchanged and in spatial order; centres uniformly strided over the rest; every other
    token joins the centre of highest cosine similarity; contextual token = centre + mean of its cluster. A contextual
    slot takes the position of its centre.

    Guarantee: image i's slots are a function of image i alone, so under a frozen public encoder pruning costs no privacy.

    Edge cases: an empty cluster adds zero to its centre; ``contextual=0`` fuses nothing.

    >>> hidden = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    >>> kept = dominant_contextual(hidden, torch.tensor([[0.1, 0.9, 0.2, 0.3]]), torch.ones(1, 4, 1), dominant=1, contextual=1)
    >>> kept.features_BSD.flatten().tolist(), kept.source_BS.tolist()
    ([2.0, 4.5], [[1, 0]])
    """
    _, tokens, width = hidden_BTD.shape
    if not (dominant >= 1 and contextual >= 0 and dominant + contextual <= tokens):
        raise ValueError(
            f"tokens: dominant >= 1, contextual >= 0 and at most {tokens} together, got {dominant} + {contextual}"
        )
    dominant_BK = scores_BT.topk(dominant, dim=-1).indices.sort(dim=-1).values
    kept_BKD = _take(hidden_BTD, dominant_BK)
    if contextual == 0:
        return Kept(kept_BKD, dominant_BK)
    is_rest_BT = torch.ones_like(scores_BT, dtype=torch.bool).scatter(1, dominant_BK, False)
    rest_BR = is_rest_BT.nonzero()[:, 1].view(-1, tokens - dominant)
    stride = max(1, rest_BR.shape[1] // contextual)
    is_centre_R = torch.zeros(rest_BR.shape[1], dtype=torch.bool, device=rest_BR.device)
    is_centre_R[torch.arange(contextual, device=rest_BR.device) * stride] = True
    centre_BC, other_BM = rest_BR[:, is_centre_R], rest_BR[:, ~is_centre_R]
    similarity_BMC = _take(metric_BTE, other_BM) @ _take(metric_BTE, centre_BC).transpose(1, 2)
    member_BMC = torch.nn.functional.one_hot(similarity_BMC.argmax(dim=-1), contextual).to(hidden_BTD.dtype)
    sum_BCD = member_BMC.transpose(1, 2) @ _take(hidden_BTD, other_BM)
    count_BC1 = member_BMC.sum(dim=1)[..., None].clamp(min=1)
    fused_BCD = _take(hidden_BTD, centre_BC) + sum_BCD / count_BC1
    return Kept(torch.cat([kept_BKD, fused_BCD], dim=1), torch.cat([dominant_BK, centre_BC], dim=1))


def _take(values_BTD: Tensor, index_BS: Tensor) -> Tensor:
    return values_BTD.gather(1, index_BS[..., None].expand(-1, -1, values_BTD.shape[-1]))
