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
class Realign:
    """How the start of reversible layers is brought back to the frozen model, on public records alone."""

    records: int
    """Public rows, drawn by the public seed."""
    steps: int
    """0: the start stays as it is."""
    batch: int
    """Rows of one step."""
    learning_rate: float

    def __post_init__(self) -> None:
        """Refuse steps without rows."""
        if self.steps < 0 or self.records < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError(
                "trainable.reversible.realign needs steps of at least 0, and records, batch and "
                f"learning_rate above 0, got {self.steps}, {self.records}, {self.batch} and "
                f"{self.learning_rate}"
            )


@dataclass(frozen=True, kw_only=True)
class ReversibleForm:
    """What reversible adapters are made of."""

    segment: int
    """Layers between two stored boundaries."""
    width: int
    """Width of each adapter."""
    scale: float
    """lambda in y1 = lambda x1 + F(x2); published: 0.1."""
    centred: bool
    """F subtracts lambda x2, so that the start is near the frozen model; false: as published."""

    def __post_init__(self) -> None:
        """Refuse segments without layers, adapters without weights, and a lambda that cannot be undone."""
        if not 0 < self.scale <= 1:
            raise ValueError(
                f"trainable.reversible.scale must lie above 0 and be at most 1, got {self.scale}: layers are "
                "undone by a division by it"
            )
        if self.segment < 1 or self.width < 1:
            raise ValueError(
                "trainable.reversible.segment and trainable.reversible.width must be at least 1, got "
                f"{self.segment} and {self.width}"
            )


@dataclass(frozen=True, kw_only=True)
class ReversibleSettings(ReversibleForm):
    """The part ``reversible``: layers whose inputs are rebuilt from their outputs (MEFT, 2023; DP-MemArc)."""

    realign: Realign


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
