"""Which visual tokens of an image stay: one function a rule, all with the same signature.

Pure functions of one image's encoder outputs: under a frozen public encoder a choice costs no privacy.

Shapes: B images, T patch tokens of one image, K = tokens that stay, D hidden width, S = slots.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize, one_hot

from stages.vlm.llava import Seen
from stages.vlm.pruning import Kept, dominant_contextual, keep_all

Select = Literal["all", "dominant_contextual", "diverse", "reconstruct", "grid", "random"]
Merge = Literal["cluster", "cluster_average", "none"]
_SEED = 20_250_607
"""Public: the places that ``random`` keeps are the same in every image and every run."""


def most_attended(hidden_TD: Tensor, scores_T: Tensor | None, count: int) -> Tensor:
    """Return the tokens of largest score, (K,) in spatial order.

    Dual-Priv Pruning, Mechanism 1 (Wei et al. 2025).
    """
    if scores_T is None:
        raise ValueError("tokens.select dominant_contextual needs attention scores")
    return scores_T.topk(count).indices.sort().values


def most_diverse(hidden_TD: Tensor, scores_T: Tensor | None, count: int) -> Tensor:
    """Return tokens that lie far from each other, (K,) in spatial order.

    Greedy max-min by cosine distance, as DivPrune (Alvar et al., CVPR 2025) does: first the token that is
    farthest from its nearest neighbour, then again and again the one farthest from all that were taken.
    """
    unit_TD = normalize(hidden_TD.double(), dim=-1)
    distance_TT = 1 - unit_TD @ unit_TD.T
    nearest_T = distance_TT.clone().fill_diagonal_(torch.inf).amin(dim=1)
    taken = [int(nearest_T.argmax())]
    nearest_T = distance_TT[taken[0]].clone()
    while len(taken) < count:
        nearest_T[taken] = -torch.inf
        taken.append(int(nearest_T.argmax()))
        nearest_T = torch.minimum(nearest_T, distance_TT[taken[-1]])
    return torch.tensor(sorted(taken), device=hidden_TD.device)


def best_reconstructing(hidden_TD: Tensor, scores_T: Tensor | None, count: int) -> Tensor:
    """Return tokens in whose span all others lie best, (K,) in spatial order.

    Greedy: each next token takes away most of the squared error of projecting every token onto the span of
    those taken (column subset selection, Farahat et al. 2011). No attention is needed.
    """
    error_TT = hidden_TD.double() @ hidden_TD.double().T
    floor = 1e-12 * error_TT.diagonal().max()
    is_free_T = torch.ones(len(hidden_TD), dtype=torch.bool, device=hidden_TD.device)
    for _ in range(count):
        own_T = error_TT.diagonal()
        gain_T = torch.where(own_T > floor, error_TT.square().sum(dim=0) / own_T.clamp(min=floor), 0.0)
        best = int(torch.where(is_free_T, gain_T, -torch.inf).argmax())
        is_free_T[best] = False
        if own_T[best] > floor:
            error_TT = error_TT - torch.outer(error_TT[best], error_TT[best]) / own_T[best]
    return (~is_free_T).nonzero()[:, 0]


def at_random(hidden_TD: Tensor, scores_T: Tensor | None, count: int) -> Tensor:
    """Return tokens at places that a public generator draws, (K,) in spatial order: the control."""
    order = torch.randperm(len(hidden_TD), generator=torch.Generator().manual_seed(_SEED))
    return order[:count].sort().values.to(hidden_TD.device)


RULES: dict[str, Callable[[Tensor, Tensor | None, int], Tensor]] = {
    "dominant_contextual": most_attended,
    "diverse": most_diverse,
    "reconstruct": best_reconstructing,
    "random": at_random,
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A rule with its public settings."""

    select: Select
    merge: Merge
    layer: int
    """Encoder layer whose attention scores patches; unused by rules without attention."""
    dominant: int
    """Tokens that stay as they are."""
    contextual: int
    """Tokens that the others are merged into."""

    def keep(self, seen: Seen) -> Kept:
        """Apply the rule to what the tower saw, image by image."""
        if self.select == "all":
            return keep_all(seen.hidden_BTD)
        if self.select == "grid":
            return pooled(seen.hidden_BTD, self.dominant + self.contextual)
        scores_BT, metric_BTE = seen.scores.get(self.layer), seen.metrics.get(self.layer)
        needs_attention = self.select == "dominant_contextual"
        kept = []
        for image, hidden_TD in enumerate(seen.hidden_BTD):
            scores_T = scores_BT[image] if needs_attention and scores_BT is not None else None
            metric_TE = (
                metric_BTE[image]
                if needs_attention and metric_BTE is not None
                else normalize(hidden_TD, dim=-1)
            )
            chosen_K = RULES[self.select](hidden_TD, scores_T, self.dominant)
            kept.append(self._merged(hidden_TD[None], chosen_K, metric_TE[None]))
        return Kept(torch.cat([one.features_BSD for one in kept]), torch.cat([one.source_BS for one in kept]))

    def _merged(self, hidden_1TD: Tensor, chosen_K: Tensor, metric_1TE: Tensor) -> Kept:
        is_chosen_1T = torch.zeros_like(hidden_1TD[..., 0]).index_fill(1, chosen_K, 1.0)
        contextual = 0 if self.merge == "none" else self.contextual
        published = dominant_contextual(
            hidden_1TD, is_chosen_1T, metric_1TE, dominant=self.dominant, contextual=contextual
        )
        if self.merge != "cluster_average" or not contextual:
            return published
        return averaged(published, hidden_1TD, metric_1TE, self.dominant)


def averaged(published: Kept, hidden_1TD: Tensor, metric_1TE: Tensor, dominant: int) -> Kept:
    """Return the same clusters with plain averages, the centre among the rest, instead of centre + mean."""
    source_S = published.source_BS[0]
    centre_C = source_S[dominant:]
    is_other_T = torch.ones(hidden_1TD.shape[1], dtype=torch.bool, device=hidden_1TD.device)
    is_other_T[source_S] = False
    nearest_M = (metric_1TE[0, is_other_T] @ metric_1TE[0, centre_C].T).argmax(dim=-1)
    member_MC = one_hot(nearest_M, len(centre_C)).to(hidden_1TD.dtype)
    sum_CD = hidden_1TD[0, centre_C] + member_MC.T @ hidden_1TD[0, is_other_T]
    average_CD = sum_CD / (1 + member_MC.sum(dim=0))[:, None]
    features_1SD = torch.cat([published.features_BSD[:, :dominant], average_CD[None]], dim=1)
    return Kept(features_1SD, published.source_BS)


def pooled(hidden_BTD: Tensor, count: int) -> Kept:
    """Return averages over the cells of the squarest grid of at most ``count`` cells: the other control.

    A cell takes the position of the patch in its middle. Towers whose patches are no square are a ValueError.
    """
    batch, tokens, width = hidden_BTD.shape
    side = round(tokens**0.5)
    if side**2 != tokens:
        raise ValueError(f"tokens.select grid needs a square of patches, and this tower has {tokens}")
    rows, columns = cells(count, side)
    features = [
        adaptive_avg_pool2d(hidden_TD.T.reshape(width, side, side), (rows, columns)).flatten(1).T
        for hidden_TD in hidden_BTD  # one by one: pooled together, an image's last bits hang on the others
    ]
    middle_R = ((torch.arange(rows) + 0.5) * side / rows).long()
    middle_C = ((torch.arange(columns) + 0.5) * side / columns).long()
    source_S = (middle_R[:, None] * side + middle_C).flatten().to(hidden_BTD.device)
    return Kept(torch.stack(features), source_S.expand(batch, -1))


def cells(count: int, side: int) -> tuple[int, int]:
    """Return rows and columns of the largest grid of at most ``count`` cells, at most twice as wide as high.

    >>> cells(16, 24), cells(20, 24), cells(13, 8)
    ((4, 4), (4, 5), (3, 4))
    """
    grids = [(row, column) for row in range(1, side + 1) for column in range(row, min(side, 2 * row) + 1)]
    fitting = [grid for grid in grids if grid[0] * grid[1] <= count]
    return max(fitting, key=lambda grid: (grid[0] * grid[1], grid[0]))
