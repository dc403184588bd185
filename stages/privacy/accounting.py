"""Price composed privacy events: the smallest epsilon at a delta.

The deciding accountant is dp_accounting's PLD, pessimistic (methods: section 6). RDP is the cross-check
where it is defined. Anything an accountant does not support is refused, never guessed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Literal

import dp_accounting
from dp_accounting import pld, rdp

Relation = Literal["add_or_remove_one", "replace_one"]
ACCOUNTANT = f"dp_accounting {version('dp-accounting')} PLD"
_RELATIONS = {
    "add_or_remove_one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}
FINE_GRID = 1e-4
COARSE_GRID = 2e-3


@dataclass(frozen=True, kw_only=True)
class Target:
    """Section ``privacy`` of params.yaml: the promise that training may not exceed."""

    relation: Relation
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        """Refuse a promise that promises nothing."""
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(f"privacy.epsilon must be positive and finite, got {self.epsilon}")
        if not 0 < self.delta < 1:
            raise ValueError(f"privacy.delta must lie between 0 and 1, got {self.delta}")


def epsilon_of(
    events: Sequence[dp_accounting.DpEvent], delta: float, relation: Relation, *, grid: float = FINE_GRID
) -> float:
    """Return the epsilon at ``delta`` of all events composed, by PLD; infinity for an event without privacy.

    Guarantee: the composition is (epsilon, delta)-DP for the relation; PLD rounds pessimistically to
    multiples of ``grid``, so a coarser grid is quicker and gives a larger epsilon.

    >>> round(epsilon_of([step_event(0.01, 0.8, 1000)], 1e-5, "add_or_remove_one"), 2)
    3.14
    """
    if any(is_nonprivate(event) for event in events):
        return math.inf
    return _pld_epsilon(tuple(events), delta, relation, grid)


@cache
def _pld_epsilon(
    events: tuple[dp_accounting.DpEvent, ...], delta: float, relation: Relation, grid: float
) -> float:
    accountant = pld.PLDAccountant(_RELATIONS[relation], value_discretization_interval=grid)
    for event in events:
        if not accountant.supports(event):
            raise ValueError(f"PLD does not support {event} under {relation}")
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def rdp_epsilon_of(events: Sequence[dp_accounting.DpEvent], delta: float, relation: Relation) -> float | None:
    """Return RDP's epsilon as a cross-check, or None where RDP does not apply.

    RDP refuses Poisson-sampled Gaussians under replace-one and ignores the relation of a plain Gaussian, so
    only add-or-remove is checked. An order at which its series does not converge is left out, which can only
    enlarge the result.
    """
    if relation != "add_or_remove_one" or any(is_nonprivate(event) for event in events):
        return None
    return _rdp_epsilon(tuple(events), delta, relation)


@cache
def _rdp_epsilon(events: tuple[dp_accounting.DpEvent, ...], delta: float, relation: Relation) -> float | None:
    accountant = rdp.RdpAccountant(neighboring_relation=_RELATIONS[relation])
    for event in events:
        if not accountant.supports(event):
            return None
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def step_event(rate: float, noise_multiplier: float, steps: int) -> dp_accounting.DpEvent:
    """Return the event of ``steps`` noisy sums over Poisson-sampled batches."""
    once = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    return dp_accounting.SelfComposedDpEvent(once, steps)


def is_nonprivate(event: dp_accounting.DpEvent) -> bool:
    """Tell whether an event, or a part of it, offers no privacy at all."""
    if isinstance(event, dp_accounting.NonPrivateDpEvent):
        return True
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return any(is_nonprivate(part) for part in event.events)
    if isinstance(event, dp_accounting.SelfComposedDpEvent | dp_accounting.PoissonSampledDpEvent):
        return is_nonprivate(event.event)
    return False
