"""Section ``trainable`` of a benchmark."""

from collections.abc import Sequence

from stages.trainable.settings import Kind, Realign, ReversibleSettings, SideSettings, Trainable

REALIGN = Realign(records=1, steps=0, batch=1, learning_rate=0.001)


def trainable_section(kind: Kind, rank: int, targets: Sequence[str]) -> Trainable:
    """Return what learns: LoRA scaled by 2, or, by ``kind``, a side network or reversible layers."""
    return Trainable(
        kind=kind,
        rank=rank,
        alpha=2.0 * rank,
        targets=tuple(targets),
        side=SideSettings(reduction=8, every=1),
        reversible=ReversibleSettings(segment=4, width=8, scale=0.1, centred=True, realign=REALIGN),
    )
