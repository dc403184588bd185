"""Section ``trainable`` of params.yaml: which weights learn."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lora", "ffa_lora", "side", "reversible"]


@dataclass(frozen=True, kw_only=True)
class SideSettings:
    """The part ``side``: a narrow network beside the backbone (Sung et al. 2022; DP-MemArc, 2024)."""

    reduction: int
    """The side network is so many times narrower than the language model."""
    every: int
    """1: every layer of the language model feeds the side network; 2: every second one."""

    def __post_init__(self) -> None:
        """Refuse a network without width or layers."""
        if self.reduction < 1 or self.every < 1:
            raise ValueError(
                "trainable.side.reduction and trainable.side.every must be at least 1, got "
                f"{self.reduction} and {self.every}"
            )


@dataclass(frozen=True, kw_only=True)
class ReversibleSettings:
    """The part ``reversible``: layers whose inputs are rebuilt from their outputs (MEFT, 2023; DP-MemArc)."""

    segment: int
    """Layers between two stored boundaries."""
    width: int
    """Width of each adapter."""

    def __post_init__(self) -> None:
        """Refuse segments without layers and adapters without weights."""
        if self.segment < 1 or self.width < 1:
            raise ValueError(
                "trainable.reversible.segment and trainable.reversible.width must be at least 1, got "
                f"{self.segment} and {self.width}"
            )


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """Section ``trainable`` of params.yaml."""

    kind: Kind
    """lora trains both factors. ffa_lora keeps factor A at its random start (Sun et al. 2024): half the
    weights, an update that is linear in them, and only the T x rank projection of an input to keep. side and
    reversible are the two variants of DP-MemArc."""
    rank: int
    """Of LoRA; unused by side and reversible, like the next two."""
    alpha: float
    """The update is scaled by alpha / rank."""
    targets: tuple[str, ...]
    """Last names of the language model's linear layers that get an adapter."""
    side: SideSettings
    """Unused by other kinds, as the next one."""
    reversible: ReversibleSettings

    def __post_init__(self) -> None:
        """Refuse an adapter without weights."""
        if self.rank < 1 or not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(
                f"trainable.rank and trainable.alpha must be positive, got {self.rank} and {self.alpha}"
            )
        if not self.targets:
            raise ValueError("trainable.targets is empty: name linear layers such as q_proj")
