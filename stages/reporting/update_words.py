"""What the page says of how an update is pruned: each rule of section ``update`` in words."""

from dataclasses import dataclass

from stages.training.update_pruning import Update


@dataclass(frozen=True, kw_only=True)
class UpdateWords:
    """One rule."""

    name: str
    applied: str
    """What of an update is applied, and what that costs."""
    kept: str
    """A sentence on the figure of noise left, whose dashed line is ``update.keep``."""
    scored: str
    """A sentence on what the rule chooses by."""


def update_words(update: Update) -> UpdateWords:
    """Return the words for a section ``update``."""
    line = "The dashed line is this run's update.keep"
    kept, name = f"{line}.", f"{update.prune}, keep {update.keep:g}"
    free = "which part of a noisy update is applied: post-processing, free"
    if update.prune == "all":
        return UpdateWords(
            name="all",
            applied="the whole of a noisy update is applied",
            kept=f"{line}, which this run does not use.",
            scored="This run updates everything, and scores nothing.",
        )
    if update.prune == "accumulated":
        warmup = "step" if update.warmup_steps == 1 else f"{update.warmup_steps} steps, summed"
        return UpdateWords(
            name=f"{name}, from step {update.warmup_steps + 1} on",
            applied="gradients are masked before they are clipped, to blocks that stood out in noisy sums "
            "paid for before: adaptive composition, every step at its planned price",
            kept=f"{line}, of blocks chosen in the warm-up: the noise of later steps is put on those alone, "
            "and is not pruned as the curves say.",
            scored=f"This run scores by its first {warmup}.",
        )
    if update.prune == "random":
        return UpdateWords(
            name=name,
            applied=free,
            kept=f"{line}, drawn from a public seed, which keeps that very share of the noise energy.",
            scored="This run draws what it updates, and scores nothing.",
        )
    what = "blocks" if update.prune == "block" else "single weights"
    return UpdateWords(name=name, applied=free, kept=kept, scored=f"This run scores {what}, by one step.")
