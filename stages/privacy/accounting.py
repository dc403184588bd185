"""Price composed privacy events: the smallest epsilon at a delta.

Who decides and who may check stands in the table of stages/privacy/accountants.py; the deciding accountant of
everything a plan can hold is dp_accounting's PLD, pessimistic (methods: section 6).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Literal

import dp_accounting

from stages.privacy.accountants import Accountant, Relation, cell_of, leaves, price
from stages.privacy.directions import Distribution

ACCOUNTANT = f"dp_accounting {version('dp-accounting')} PLD"
PURE = "sum of pure epsilons"
"""What decides where there is Laplace noise alone."""
FINE_GRID = 1e-4
COARSE_GRID = 2e-3
Composition = Literal["parallel", "sequential"]
"""How charges on training and on held-out units add up: a unit is in one of the splits, or may be in both."""


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
        if not 0 <= self.delta < 1:
            raise ValueError(f"privacy.delta must lie in [0, 1), got {self.delta}")


def epsilon_of(
    events: Sequence[dp_accounting.DpEvent], delta: float, relation: Relation, *, grid: float = FINE_GRID
) -> float:
    """Return the epsilon at ``delta`` of all events composed, by whoever decides about them.

    Guarantee: the composition is (epsilon, delta)-DP for the relation; PLD rounds pessimistically to
    multiples of ``grid``, so a coarser grid is quicker and gives a larger epsilon. An event without privacy
    gives infinity, and one that no accountant is known to be right for is a ValueError.

    >>> round(epsilon_of([step_event(0.01, 0.8, 1000)], 1e-5, "add_or_remove_one"), 2)
    3.14
    """
    if any(is_nonprivate(event) for event in events):
        return math.inf
    return _epsilon_by(cell_of(events, relation).deciding, tuple(events), delta, relation, grid)


def composed_epsilon(
    events_by_split: Mapping[str, Sequence[dp_accounting.DpEvent]],
    delta: float,
    relation: Relation,
    composition: Composition,
    *,
    grid: float = FINE_GRID,
) -> float:
    """Return the epsilon at ``delta`` of what was done to every split.

    Guarantee: "parallel" (the largest of the splits) holds where adding or removing a unit changes one split
    alone, and which one is a function of the unit's own id; "sequential" (all composed) always holds.
    """
    if composition == "parallel" and relation != "add_or_remove_one":
        raise ValueError(f"splits compose in parallel under add_or_remove_one only, not under {relation}")
    groups = composed_groups(events_by_split, composition)
    return max((epsilon_of(group, delta, relation, grid=grid) for group in groups), default=0.0)


def composed_groups(
    events_by_split: Mapping[str, Sequence[dp_accounting.DpEvent]], composition: Composition
) -> list[list[dp_accounting.DpEvent]]:
    """Return what one unit may meet: the events of either split, or those of all splits together."""
    groups = [list(events) for events in events_by_split.values()]
    return groups if composition == "parallel" else [[event for group in groups for event in group]]


def accountant_of(groups: Sequence[Sequence[dp_accounting.DpEvent]], relation: Relation) -> str:
    """Return the name of who decides about groups of events: PLD where it decides about any of them."""
    if any(is_nonprivate(event) for group in groups for event in group):
        return ACCOUNTANT
    deciding = {cell_of(group, relation).deciding for group in groups if leaves(group)}
    return PURE if deciding == {"pure epsilon"} else ACCOUNTANT


def cross_checks(
    events: Sequence[dp_accounting.DpEvent], delta: float, relation: Relation
) -> dict[Accountant, float]:
    """Return the epsilon by every accountant that is a valid check for these events, which may be none."""
    if any(is_nonprivate(event) for event in events):
        return {}
    return {
        name: _epsilon_by(name, tuple(events), delta, relation, FINE_GRID)
        for name in cell_of(events, relation).checks
    }


@cache
def _epsilon_by(
    accountant: Accountant,
    events: tuple[dp_accounting.DpEvent, ...],
    delta: float,
    relation: Relation,
    grid: float,
) -> float:
    return price(accountant, events, delta, relation, grid=grid)


def step_event(
    rate: float, noise_multiplier: float, steps: int, noise: Distribution = "gaussian"
) -> dp_accounting.DpEvent:
    """Return the event of ``steps`` noisy sums over Poisson-sampled batches."""
    of = dp_accounting.GaussianDpEvent if noise == "gaussian" else dp_accounting.LaplaceDpEvent
    once = dp_accounting.PoissonSampledDpEvent(rate, of(noise_multiplier))
    return dp_accounting.SelfComposedDpEvent(once, steps)


def is_nonprivate(event: dp_accounting.DpEvent) -> bool:
    """Tell whether an event, or a part of it, offers no privacy at all: no mechanism, or no noise."""
    if isinstance(event, dp_accounting.NonPrivateDpEvent):
        return True
    if isinstance(event, dp_accounting.GaussianDpEvent | dp_accounting.LaplaceDpEvent):
        return bool(event.noise_multiplier == 0)
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return any(is_nonprivate(part) for part in event.events)
    if isinstance(event, dp_accounting.SelfComposedDpEvent | dp_accounting.PoissonSampledDpEvent):
        return is_nonprivate(event.event)
    return False
