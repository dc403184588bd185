"""Which visual tokens of an image stay: one function a rule, all with the same signature.

Pure functions of one image's encoder outputs: under a frozen public encoder a choice costs no privacy.

Shapes: T slots of one image, P of them patches, K patches that stay, S slots that stay, D width of a slot, E
width of the similarity metric, C clusters.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from stages.vlm.grid import pooled
from stages.vlm.pruning import dominant_contextual
from stages.vlm.seen import Fate, Seen

Select = Literal["all", "dominant_contextual", "diverse", "reconstruct", "grid", "random"]
Merge = Literal["cluster", "cluster_average", "none"]
_SEED = 20_250_607
"""Public: the places that ``random`` keeps are the same in every image and every run."""


def most_attended(patches_PD: Tensor, scores_P: Tensor | None, count: int) -> Tensor:
    """Return the tokens of largest score, (K,) in spatial order.

    Dual-Priv Pruning, Mechanism 1 (Wei et al. 2025).
    """
    assert scores_P is not None
    return scores_P.topk(count).indices.sort().values


def most_diverse(patches_PD: Tensor, scores_P: Tensor | None, count: int) -> Tensor:
    """Return tokens that lie far from each other, (K,) in spatial order.

    Greedy max-min by cosine distance, as DivPrune (Alvar et al., CVPR 2025) does: first the token that is
    farthest from its nearest neighbour, then again and again the one farthest from all that were taken.
    """
    unit_PD = normalize(patches_PD.double(), dim=-1)
    distance_PP = 1 - unit_PD @ unit_PD.T
    nearest_P = distance_PP.clone().fill_diagonal_(torch.inf).amin(dim=1)
    taken = [int(nearest_P.argmax())]
    nearest_P = distance_PP[taken[0]].clone()
    while len(taken) < count:
        nearest_P[taken] = -torch.inf
        taken.append(int(nearest_P.argmax()))
        nearest_P = torch.minimum(nearest_P, distance_PP[taken[-1]])
    return torch.tensor(sorted(taken), device=patches_PD.device)


def best_reconstructing(patches_PD: Tensor, scores_P: Tensor | None, count: int) -> Tensor:
    """Return tokens in whose span all others lie best, (K,) in spatial order.

    Greedy: each next token takes away most of the squared error of projecting every token onto the span of
    those taken (column subset selection, Farahat et al. 2011). No attention is needed.
    """
    error_PP = patches_PD.double() @ patches_PD.double().T
    floor = 1e-12 * error_PP.diagonal().max()
    is_free_P = torch.ones(len(patches_PD), dtype=torch.bool, device=patches_PD.device)
    for _ in range(count):
        own_P = error_PP.diagonal()
        gain_P = torch.where(own_P > floor, error_PP.square().sum(dim=0) / own_P.clamp(min=floor), 0.0)
        best = int(torch.where(is_free_P, gain_P, -torch.inf).argmax())
        is_free_P[best] = False
        if own_P[best] > floor:
            error_PP = error_PP - torch.outer(error_PP[best], error_PP[best]) / own_P[best]
    return (~is_free_P).nonzero()[:, 0]


def at_random(patches_PD: Tensor, scores_P: Tensor | None, count: int) -> Tensor:
    """Return tokens at places that a public generator draws, (K,) in spatial order: the control."""
    order = torch.randperm(len(patches_PD), generator=torch.Generator().manual_seed(_SEED))
    return order[:count].sort().values.to(patches_PD.device)


RULES: dict[str, Callable[[Tensor, Tensor | None, int], Tensor]] = {
    "dominant_contextual": most_attended,
    "diverse": most_diverse,
    "reconstruct": best_reconstructing,
    "random": at_random,
}


@dataclass(frozen=True, kw_only=True)
class TokenSelection:
    """Section ``tokens`` of params.yaml: what the language model sees of an image."""

    select: Select
    merge: Merge
    """What becomes of the other tokens: ``cluster`` adds the mean of its cluster to each centre, as
    published, ``cluster_average`` takes the plain average, ``none`` keeps more tokens instead. ``grid``
    merges anyway."""
    fusion_noise: float
    """Standard deviation of Gaussian noise on merged tokens; 0: none. A regulariser that the paper calls
    heuristic (methods, section 1): it bounds nothing, is charged nothing and protects nobody."""

    def __post_init__(self) -> None:
        """Refuse noise that is none."""
        if not 0 <= self.fusion_noise < inf:
            raise ValueError(f"tokens.fusion_noise must be 0 or a positive number, got {self.fusion_noise}")

    def under(self, budget: Mapping[str, Any]) -> "Rule":
        """Return the rule under a budget: ``layer``, ``dominant`` and ``contextual`` (pruning.json)."""
        return Rule(**asdict(self), **budget)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule with its public settings; ``all`` uses none of them."""

    select: Select
    merge: Merge
    layer: int
    """Encoder layer whose attention scores the patches, from 0; unused by rules without attention."""
    dominant: int
    """Tokens that stay as they are."""
    contextual: int
    """Tokens that the others are merged into; without merging, as many more that stay."""
    fusion_noise: float = 0.0
    """Standard deviation of noise on merged tokens."""

    def __post_init__(self) -> None:
        """Refuse a budget of nothing."""
        if self.select != "all" and not (self.dominant >= 1 and self.contextual >= 0):
            raise ValueError(
                f"tokens: dominant >= 1 and contextual >= 0, got {self.dominant} + {self.contextual}"
            )

    @property
    def needs_attention(self) -> bool:
        """Tell whether the tower has to give attention maps, and so to run in eager mode."""
        return self.select == "dominant_contextual"

    def layers(self) -> tuple[int, ...]:
        """Return the encoder layers this rule needs scores of."""
        return (self.layer,) if self.needs_attention else ()

    def slots(self, every: int | None) -> int | None:
        """Return the most tokens of an image that the language model sees, of ``every``; None: no bound."""
        if self.select == "all":
            return every
        budget = self.dominant + self.contextual
        return budget if every is None else min(budget, every)

    def keep(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Apply the rule to one image: slots (S, D) and, for each, the slot whose place it takes, (S,).

        An image of no more patches than the budget keeps them all.
        """
        patches_PD, patch_P = seen.slots_TD[seen.patch_P], seen.patch_P
        if self.select == "all":
            return seen.slots_TD, torch.arange(len(seen.slots_TD), device=seen.slots_TD.device)
        if self.dominant + self.contextual >= len(patch_P):
            return patches_PD, patch_P
        if self.select == "grid":
            features_SD, source_S = pooled(seen, patches_PD, self.dominant + self.contextual)
            merged = len(features_SD)
        else:
            features_SD, source_S = self._kept(seen, patches_PD)
            merged = 0 if self.merge == "none" else self.contextual
        if self.fusion_noise and merged:
            whole = len(features_SD) - merged
            noise_CD = self.fusion_noise * public_noise(patches_PD, merged)
            features_SD = torch.cat([features_SD[:whole], features_SD[whole:] + noise_CD])
        return features_SD, patch_P[source_S]

    def fates(self, seen: Seen) -> list[Fate]:
        """Tell what becomes of each patch of an image, in order."""
        _, source_S = self.keep(seen)
        patch_of = {slot: patch for patch, slot in enumerate(seen.patch_P.tolist())}
        kept = [patch_of[slot] for slot in source_S.tolist() if slot in patch_of]
        if len(kept) >= len(patch_of):
            return ["kept"] * len(patch_of)
        merges = self.select == "grid" or self.merge != "none"
        whole = 0 if self.select == "grid" else self.dominant if merges else len(kept)
        fates: list[Fate] = ["merged" if merges and len(kept) > whole else "dropped"] * len(patch_of)
        for order, patch in enumerate(kept):
            fates[patch] = "kept" if order < whole else "centre"
        return fates

    def _kept(self, seen: Seen, patches_PD: Tensor) -> tuple[Tensor, Tensor]:
        """Choose and merge patches; without attention, features say which of them are alike."""
        scores_P, metric_PE = None, normalize(patches_PD, dim=-1)
        if self.needs_attention:
            if self.layer not in seen.scores:
                raise ValueError(f"tokens.select {self.select} needs attention scores of layer {self.layer}")
            scores_P, metric_PE = seen.scores[self.layer], seen.metrics[self.layer]
        dominant, contextual = self.dominant, self.contextual
        if self.merge == "none":
            dominant, contextual = dominant + contextual, 0
        chosen_K = RULES[self.select](patches_PD, scores_P, dominant)
        is_chosen_1P = torch.zeros_like(patches_PD[None, :, 0]).index_fill(1, chosen_K, 1.0)
        published = dominant_contextual(
            patches_PD[None], is_chosen_1P, metric_PE[None], dominant=dominant, contextual=contextual
        )
        features_SD, source_S = published.features_BSD[0], published.source_BS[0]
        if self.merge == "cluster_average" and contextual:
            average_CD = averaged(patches_PD, metric_PE, source_S, dominant)
            features_SD = torch.cat([features_SD[:dominant], average_CD])
        return features_SD, source_S


EVERY_TOKEN = Rule(select="all", merge="none", layer=0, dominant=0, contextual=0)
"""What pruning is compared with."""


def public_noise(patches_PD: Tensor, count: int) -> Tensor:
    """Return standard Gaussian noise for ``count`` slots, shape (``count``, D), that only the image decides.

    Anybody who has the image can draw it again: it hides nothing.
    """
    content = patches_PD.detach().double().cpu().numpy().tobytes()
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(seed ^ _SEED)
    return torch.randn(count, patches_PD.shape[1], generator=generator).to(patches_PD)


def averaged(patches_PD: Tensor, metric_PE: Tensor, source_S: Tensor, dominant: int) -> Tensor:
    """Return the clusters' plain averages, centre among the rest, instead of centre + mean, shape (C, D)."""
    centre_C = source_S[dominant:]
    is_other_P = torch.ones(len(patches_PD), dtype=torch.bool, device=patches_PD.device)
    is_other_P[source_S] = False
    nearest_M = (metric_PE[is_other_P] @ metric_PE[centre_C].T).argmax(dim=-1)
    member_MC = one_hot(nearest_M, len(centre_C)).to(patches_PD.dtype)
    sum_CD = patches_PD[centre_C] + member_MC.T @ patches_PD[is_other_P]
    return sum_CD / (1 + member_MC.sum(dim=0))[:, None]
