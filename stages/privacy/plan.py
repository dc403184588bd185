"""The whole mechanism of a private training run, decided before any private gradient."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import dp_accounting

from stages.core.schema import parse
from stages.privacy.accountants import Relation
from stages.privacy.accounting import (
    FINE_GRID,
    Composition,
    Target,
    accountant_of,
    composed_epsilon,
    composed_groups,
    step_event,
)
from stages.privacy.clipping_rule import Groups, Rule
from stages.privacy.directions import Directions
from stages.privacy.events import event_from_json
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling

VERSION = 3
EstimatorKind = Literal["gradient", "zeroth_order", "nonprivate"]
"""gradient: per-unit clipped gradients (DP-SGD). zeroth_order: slopes along public directions, by forward
passes alone (DPZero, DP-AggZO). nonprivate: the reference; public populations only."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A noised sum that another stage of the same pass releases, before training or after it."""

    stage: str
    split: Literal["train", "heldout"]
    rate: float
    """Chance that a unit joins the sum; 1 is every unit."""
    noise_multiplier: float

    def event(self) -> dp_accounting.DpEvent:
        """Return its privacy event."""
        gaussian = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        return gaussian if self.rate == 1 else dp_accounting.PoissonSampledDpEvent(self.rate, gaussian)


@dataclass(frozen=True, kw_only=True)
class Others:
    """What the same pass spends beside training, and how the two splits add up."""

    charges: tuple[Beside, ...]
    composition: Composition

    def epsilon(self, training: dp_accounting.DpEvent, target: Target, grid: float = FINE_GRID) -> float:
        """Return the epsilon of the whole pass at the target's delta, with ``training`` on split train."""
        events = self._by_split(training)
        return composed_epsilon(events, target.delta, target.relation, self.composition, grid=grid)

    def accountant(self, training: dp_accounting.DpEvent, relation: Relation) -> str:
        """Return the name of who decides about the whole pass."""
        return accountant_of(composed_groups(self._by_split(training), self.composition), relation)

    def _by_split(self, training: dp_accounting.DpEvent) -> dict[str, list[dp_accounting.DpEvent]]:
        events: dict[str, list[dp_accounting.DpEvent]] = {"train": [training], "heldout": []}
        for charge in self.charges:
            events[charge.split].append(charge.event())
        return events


def beside_of(charge: Mapping[str, Any]) -> Beside:
    """Return what a charge that a stage has written spends; its event is a noised sum, sampled or not."""
    event = event_from_json(charge["event"])
    rate, noisy = 1.0, event
    if isinstance(event, dp_accounting.PoissonSampledDpEvent):
        rate, noisy = event.sampling_probability, event.event
    if not isinstance(noisy, dp_accounting.GaussianDpEvent) or charge["split"] not in ("train", "heldout"):
        raise ValueError(
            f"stage {charge['stage']} charges {charge['event']}, which is no noised sum over a split"
        )
    return Beside(
        stage=charge["stage"], split=charge["split"], rate=rate, noise_multiplier=noisy.noise_multiplier
    )


NOTHING_ELSE = Others(charges=(), composition="sequential")
"""A pass that charges training alone."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the privacy of a run, and nothing that does not."""

    version: int
    population: Population
    relation: Relation
    target_epsilon: float
    delta: float
    mechanism: Literal["gaussian", "laplace", "none"]
    estimator: EstimatorKind
    directions: Directions | None
    """Those of zeroth order; None for other estimators."""
    sampler: Literal["poisson"]
    sampling: Sampling
    rows_per_unit: int
    clip: float | None
    """Norm of what one unit contributes, L1 for laplace and L2 for gaussian; None without privacy."""
    clip_rule: Rule | None
    clip_groups: Groups | None
    """How a unit is brought to that norm (stages/privacy/clipping_rule.py); None without privacy."""
    noise_multiplier: float | None
    """Noise standard deviation (laplace: scale) / clip; None without privacy."""
    others: Others
    accountant: str
    epsilon: float | None
    """What the planned steps and the other charges spend; None (infinite) without privacy."""

    def event(self, steps: int) -> dp_accounting.DpEvent:
        """Return the privacy event of ``steps`` executed steps; none of them did nothing."""
        if steps == 0:
            return dp_accounting.NoOpDpEvent()
        if self.mechanism == "none":
            return dp_accounting.NonPrivateDpEvent()
        if self.noise_multiplier is None:
            raise ValueError(f"mechanism '{self.mechanism}' has no noise multiplier, so nothing prices it")
        return step_event(self.sampling.rate, self.noise_multiplier, steps, self.mechanism)

    @property
    def target(self) -> Target:
        """Return what the pass may spend."""
        return Target(relation=self.relation, epsilon=self.target_epsilon, delta=self.delta)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return asdict(self)


def read_plan(value: Any, where: str) -> Plan:
    """Return the plan that a stored JSON value describes; errors start with ``where``."""
    plan = parse(value, Plan, where)
    if plan.version != VERSION:
        raise ValueError(f"{where} has version {plan.version}; this dualpriv reads version {VERSION}")
    return plan
