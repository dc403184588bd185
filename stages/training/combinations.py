"""Refuse choices that make no sense together, before anything is spent. All others combine."""

from stages.privacy.plan import EstimatorKind
from stages.trainable.settings import Trainable
from stages.training.optimizer import Optim
from stages.training.update_pruning import Update


def require_sensible(estimator: EstimatorKind, trainable: Trainable, update: Update, optim: Optim) -> None:
    """Refuse a combination with its reason and a way out; every method of the README passes."""
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
    if estimator == "zeroth_order" and optim.shrink == "spectrum":
        raise ValueError(
            "optim.shrink spectrum takes noise to be independent in every weight, and that of estimator.kind "
            "zeroth_order lies along its directions: set it to none"
        )
