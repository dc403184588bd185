"""Refuse choices that make no sense together, before anything is spent. All others combine."""

from stages.privacy.plan import Plan
from stages.trainable.settings import Trainable
from stages.training.optimizer import Optim
from stages.training.update_pruning import Update


def require_sensible(plan: Plan, trainable: Trainable, update: Update, optim: Optim) -> None:
    """Refuse a combination with its reason and a way out; every method of the Methods page passes."""
    estimator = plan.estimator
    if update.prune == "accumulated" and update.warmup_steps >= plan.sampling.steps:
        raise ValueError(
            f"update.warmup_steps {update.warmup_steps} leaves no step of sampling.steps "
            f"{plan.sampling.steps} to update.prune accumulated: lower it, or set update.prune to all"
        )
    if estimator == "zeroth_order" and trainable.kind == "reversible":
        raise ValueError(
            "trainable.kind reversible saves the memory of a backward pass, and estimator.kind zeroth_order "
            "has none: take lora, ffa_lora or side"
        )
    if estimator == "zeroth_order" and update.prune == "accumulated":
        raise ValueError(
            "update.prune accumulated masks gradients before they are clipped, and estimator.kind "
            "zeroth_order has slopes only: take all, block, magnitude or random"
        )
    if optim.kind == "adam_bc" and optim.shrink == "spectrum":
        raise ValueError(
            "optim.kind adam_bc takes out the variance of noise that optim.shrink spectrum has changed: set "
            "one of them to adam, or to none"
        )
    if estimator == "zeroth_order" and optim.shrink == "spectrum":
        raise ValueError(
            "optim.shrink spectrum takes noise to be independent in every weight, and that of estimator.kind "
            "zeroth_order lies along its directions: set it to none"
        )
