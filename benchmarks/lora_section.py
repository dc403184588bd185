"""Section ``trainable`` of a benchmark: LoRA adapters."""

from collections.abc import Sequence

from stages.trainable.settings import Kind, Realign, ReversibleSettings, SideSettings, Trainable

REALIGN = Realign(records=1, steps=0, batch=1, learning_rate=0.001)


def lora_section(kind: Kind, rank: int, targets: Sequence[str]) -> Trainable:
    """Return adapters scaled by 2; what other kinds are made of is unused."""
    return Trainable(
        kind=kind,
        rank=rank,
        alpha=2.0 * rank,
        targets=tuple(targets),
        side=SideSettings(reduction=8, every=1),
        reversible=ReversibleSettings(segment=4, width=8, scale=0.1, centred=True, realign=REALIGN),
    )
