"""A privacy filter: how much Renyi differential privacy (RDP) a population's releases may spend in all.

Releases are chosen one after another, by people who have seen the earlier ones. Then composing a sequence
and stopping at a limit proves nothing unless the rule that stops is a filter. At one order, fixed before the
first release, it is: as long as the RDP of everything admitted sums to at most the budget, the whole, chosen
adaptively, has RDP of at most the budget (the Renyi filter of Feldman and Zrnic, arXiv 2008.11193, with the
worst-case loss of every release), and so is (epsilon, delta)-DP.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import dp_accounting
import numpy
from dp_accounting import rdp

from stages.privacy.accountants import Relation, leaves, pure_epsilon
from stages.privacy.accounting import is_nonprivate
from stages.privacy.events import event_from_json

ORDERS = (*(float(order) for order in range(2, 65)), 128.0, 256.0, 512.0, 1024.0)
"""Whole orders only: there the RDP of a sampled Gaussian is a finite sum, which always converges."""
ROUNDING = 1e-6
"""Share of the budget that is never spent, against the rounding of floats in sums and in other machines."""
_PRICED = (
    dp_accounting.NoOpDpEvent,
    dp_accounting.GaussianDpEvent,
    dp_accounting.LaplaceDpEvent,
    dp_accounting.PoissonSampledDpEvent,
    dp_accounting.SelfComposedDpEvent,
    dp_accounting.ComposedDpEvent,
)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Section ``ledger.limit`` of params.yaml: what all releases on a population may spend together."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        """Refuse a limit that limits nothing."""
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(f"ledger.limit.epsilon must be positive and finite, got {self.epsilon}")
        if not 0 < self.delta < 1:
            raise ValueError(f"ledger.limit.delta must lie between 0 and 1, got {self.delta}")


@dataclass(frozen=True, kw_only=True)
class RenyiFilter:
    """The order and the budget of a population, fixed when its first release is reserved."""

    epsilon: float
    delta: float
    order: float
    budget: float
    """RDP at ``order`` that all releases may spend together."""

    def __post_init__(self) -> None:
        """Refuse a filter whose budget is not that of its limit."""
        limit = Limit(epsilon=self.epsilon, delta=self.delta)
        if self.order not in ORDERS:
            raise ValueError(f"a filter has one of the orders {ORDERS}, got {self.order}")
        if not math.isclose(self.budget, budget_at(self.order, limit), rel_tol=ROUNDING / 2):
            raise ValueError(
                f"at order {self.order:g} the budget of epsilon {self.epsilon:g} at delta {self.delta:g} is "
                f"{budget_at(self.order, limit)!r}, got {self.budget!r}"
            )

    def admits(self, total: float) -> bool:
        """Tell whether releases whose RDP sums to ``total`` keep the limit.

        Guarantee: if every release is admitted before its first private record is read, and ``total`` counts
        all that were, then all of them together are (epsilon, delta)-DP, however they were chosen.
        """
        return total <= self.budget

    def epsilon_of(self, total: float) -> float:
        """Return the epsilon at the limit's delta of releases whose RDP sums to ``total``."""
        return epsilon_at(self.order, total, self.delta)


def open_filter(limit: Limit, first: dp_accounting.DpEvent, relation: Relation) -> RenyiFilter:
    """Return the filter of a population whose first release is ``first``.

    Its order is the one at which most copies of ``first`` fit the limit, the smallest among equals. ``first``
    is public, so the order is; it is never chosen again, as a filter needs.
    """
    costs = {order: cost_of(first, order, relation) for order in ORDERS}
    if not any(costs.values()):
        raise ValueError(
            "the first release of a population must spend something: the order of its filter is chosen by it"
        )
    order = max(ORDERS, key=lambda order: _copies(budget_at(order, limit), costs[order]))
    return RenyiFilter(epsilon=limit.epsilon, delta=limit.delta, order=order, budget=budget_at(order, limit))


def _copies(budget: float, cost: float) -> float:
    return budget / cost if cost > 0 else math.inf if budget > 0 else 0.0


@cache
def budget_at(order: float, limit: Limit) -> float:
    """Return the largest RDP at ``order`` within ``limit``, less ``ROUNDING`` of it; 0.0 if there is none.

    The conversion is RDP plus a constant of order and delta, wherever it is not zero.
    """
    far = 1000.0
    constant = epsilon_at(order, far, limit.delta) - far
    return max(0.0, (limit.epsilon - constant) * (1 - ROUNDING))


def epsilon_at(order: float, total: float, delta: float) -> float:
    """Return the epsilon at ``delta`` that RDP of ``total`` at ``order`` implies; infinity for infinity."""
    if math.isinf(total):
        return math.inf
    return float(rdp.compute_epsilon([order], [total], delta)[0])


def cost_of(event: dp_accounting.DpEvent, order: float, relation: Relation) -> float:
    """Return the RDP of ``event`` at ``order``; infinity for an event without privacy.

    Guarantee: a valid bound for neighbours that differ by one unit added or removed. Anything else, and
    anything that cannot be priced, is a ValueError: replace-one because dp_accounting's RDP refuses
    Poisson-sampled Gaussians under it and ignores the relation of a plain Gaussian.
    """
    if relation != "add_or_remove_one":
        raise ValueError(
            f"no accountant prices releases under {relation} across runs: the limit of a population that is "
            "not public needs privacy.relation add_or_remove_one"
        )
    if is_nonprivate(event):
        return math.inf
    _require_priced(event)
    if _has_laplace(event):
        found = leaves([event])
        pure = [leaf for leaf in found if "Laplace" in leaf.shape]
        rest = [
            dp_accounting.SelfComposedDpEvent(leaf.event, leaf.count) for leaf in found if leaf not in pure
        ]
        others = cost_of(dp_accounting.ComposedDpEvent(rest), order, relation) if rest else 0.0
        return others + math.fsum(leaf.count * _rdp_of_pure(pure_epsilon(leaf), order) for leaf in pure)
    accountant = rdp.RdpAccountant(orders=[order])
    try:
        with numpy.errstate(all="ignore"):  # noise so small that its RDP is infinite
            accountant.compose(event)
    except (ValueError, ArithmeticError, dp_accounting.UnsupportedEventError) as error:
        raise ValueError(f"the privacy filter cannot price {event}: {error}") from None
    cost = float(accountant.rdp[0])
    if math.isnan(cost) or cost < 0:
        raise ValueError(f"the privacy filter cannot price {event}: its RDP came out as {cost}")
    return cost


def _rdp_of_pure(epsilon: float, order: float) -> float:
    """Return the RDP that (epsilon, 0)-DP implies, reached by randomised response.

    Bun and Steinke 2016, Proposition 3.3.
    """
    likely, unlikely = -math.log1p(math.exp(-epsilon)), -epsilon - math.log1p(math.exp(-epsilon))
    one, other = (order * a + (1 - order) * b for a, b in ((likely, unlikely), (unlikely, likely)))
    high, low = max(one, other), min(one, other)
    return (high + math.log1p(math.exp(low - high))) / (order - 1)


def stored_cost(event: Mapping[str, Any], order: float, relation: Relation) -> float:
    """Return ``cost_of`` an event in its stored form; each distinct event is priced once a process."""
    return _stored_cost(json.dumps(event, sort_keys=True), order, relation)


@cache
def _stored_cost(event: str, order: float, relation: Relation) -> float:
    return cost_of(event_from_json(json.loads(event)), order, relation)


def _has_laplace(event: dp_accounting.DpEvent) -> bool:
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return any(map(_has_laplace, event.events))
    if isinstance(event, dp_accounting.SelfComposedDpEvent | dp_accounting.PoissonSampledDpEvent):
        return _has_laplace(event.event)
    return isinstance(event, dp_accounting.LaplaceDpEvent)


def _require_priced(event: dp_accounting.DpEvent) -> None:
    """Refuse what is known to no test of ours, though an accountant may have a number for it."""
    if type(event) not in _PRICED:
        raise ValueError(
            f"the privacy filter prices no {type(event).__name__}; it knows "
            f"{[known.__name__ for known in _PRICED]}"
        )
    if isinstance(event, dp_accounting.ComposedDpEvent):
        for part in event.events:
            _require_priced(part)
    if isinstance(event, dp_accounting.SelfComposedDpEvent | dp_accounting.PoissonSampledDpEvent):
        _require_priced(event.event)
