"""Sections of params.yaml for tests, each with what a test does not speak of left at its simplest."""

from typing import Any

from stages.training.optimizer import Optim
from stages.training.update_pruning import Update


def optim(kind: str = "sgd", **changed: Any) -> Optim:
    simple = {
        "learning_rate": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "noise_floor": 0.1,
        "schedule": "constant",
        "average": 0.0,
        "shrink": "none",
    }
    return Optim(**{"kind": kind, **simple, **changed})


def pruning(prune: str = "all", keep: float = 1.0, warmup_steps: int = 1) -> Update:
    return Update(prune=prune, keep=keep, warmup_steps=warmup_steps)
