"""How large a ledger's limit has to be for one training: asked of the ledger's own rules, writing nothing."""

from typing import Any

from pipeline.budget.books import Books
from pipeline.budget.question import others_of, planned
from stages.core.params import read_section
from stages.core.seed import Seed
from stages.privacy.accounting import Target
from stages.privacy.plan import Plan
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit
from stages.privacy.sampling import Sampling
from stages.records.data import Data
from stages.training.estimator import Estimator

LARGEST = 1000.0
"""Epsilon of a limit beyond which nobody looks."""


def plan_of(params: dict[str, Any]) -> Plan:
    """Return the plan that ``params.yaml`` would give; what makes no sense in it is a ValueError."""
    estimator = read_section(params, "estimator", Estimator)
    if estimator.kind == "nonprivate":
        raise ValueError("estimator.kind nonprivate is for populations that are public: set it to gradient")
    target = read_section(params, "privacy", Target)
    return planned(
        estimator,
        target,
        read_section(params, "population", Population),
        read_section(params, "sampling", Sampling),
        others_of(params, read_section(params, "data", Data).composition(target.relation)),
        read_section(params, "seed", Seed),
    )


def least_limit(plan: Plan, delta: float) -> float:
    """Return the least epsilon, rounded up to a tenth, of a limit at ``delta`` that admits one such plan."""

    def admits(tenths: int) -> bool:
        books = Books(
            population=plan.population,
            relation=plan.relation,
            limit=Limit(epsilon=tenths / 10, delta=delta),
            place=None,
            entries=(),
            lost=None,
        )
        return books.allow(plan).refused is None

    most = 1
    while not admits(most):
        most *= 2
        if most > 10 * LARGEST:
            raise ValueError(
                "no limit of a ledger admits this training: lower --epsilon or the sampling rate"
            )
    low, high = most // 2, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if admits(middle) else (middle, high)
    return high / 10
