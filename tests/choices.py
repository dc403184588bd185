"""Choices of a run for tests, each with what a test does not speak of left at its simplest."""

from typing import Any

from stages.privacy.accounting import Target
from stages.privacy.clipping_rule import Clipping
from stages.privacy.plan import EstimatorKind, Plan
from stages.privacy.planning import plan_for
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling
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


def planned(
    kind: EstimatorKind = "gradient",
    *,
    steps: int,
    expected_batch: float = 2.0,
    clip: float = 0.01,
    **more: Any,
) -> Plan:
    """Return a plan at epsilon 8 for a public population of at most 100, half of which joins each step."""
    return plan_for(
        kind,
        Target(relation="add_or_remove_one", epsilon=8.0, delta=1e-4),
        Population(name="people", public=True, max_units=100, unit="person"),
        Sampling(steps=steps, rate=0.5, expected_batch=expected_batch),
        clipping=Clipping(clip),
        rows_per_unit=2,
        **more,
    )
