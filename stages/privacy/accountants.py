"""Which accountant decides about an event, and which others may check it: a table, and nothing outside it.

Verified cell by cell against dp_accounting 0.6 and Opacus 1.6 (tests/stages/privacy/test_accountants.py).
Public libraries answer some cells wrongly and without a word (RDP ignores the relation of a plain Gaussian
and of Laplace noise), so a cell that is not here is refused, never guessed (methods: section 6).
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import dp_accounting
from dp_accounting import dp_event, pld, rdp
from scipy.optimize import brentq
from scipy.stats import norm

Relation = Literal["add_or_remove_one", "replace_one"]
Accountant = Literal["PLD", "RDP", "PRV", "closed form", "pure epsilon"]
Shape = Literal[
    "nothing",
    "Gaussian",
    "Poisson-sampled Gaussian",
    "Laplace",
    "Poisson-sampled Laplace",
]
RELATIONS: Mapping[Relation, dp_accounting.NeighboringRelation] = {
    "add_or_remove_one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}


@dataclass(frozen=True)
class Cell:
    """Who decides about a shape of event under a relation, and who may check.

    What PLD decides can be priced together; pure epsilons are added to whatever that gives.
    """

    deciding: Accountant
    checks: tuple[Accountant, ...]


TABLE: Mapping[tuple[Shape, Relation], Cell] = {
    ("nothing", "add_or_remove_one"): Cell("PLD", ("RDP", "PRV", "closed form")),
    ("nothing", "replace_one"): Cell("PLD", ("RDP", "PRV", "closed form")),
    ("Gaussian", "add_or_remove_one"): Cell("PLD", ("RDP", "closed form")),
    ("Gaussian", "replace_one"): Cell("PLD", ("RDP", "closed form")),  # both at half the noise
    ("Poisson-sampled Gaussian", "add_or_remove_one"): Cell("PLD", ("RDP", "PRV")),
    ("Poisson-sampled Gaussian", "replace_one"): Cell("PLD", ()),
    ("Laplace", "add_or_remove_one"): Cell("pure epsilon", ()),
    ("Poisson-sampled Laplace", "add_or_remove_one"): Cell("pure epsilon", ()),
}
_STEEP = 700.0
"""Where e^epsilon is no float any more; sampling is not counted then."""
SELECTION = (
    "private selection (RepeatAndSelect) is no charge of this pipeline: it holds only where the number of "
    "trials is drawn in secret, the score lies inside the event and nothing else of the trials leaves, while "
    "DVC records every trial of a sweep; charge each trial"
)
_KNOWN_GAPS: Mapping[Accountant, Callable[[float], tuple[float, float]]] = {
    "RDP": lambda epsilon: (0.999 * epsilon, 2 * epsilon + 1),  # an upper bound, looser than PLD
    "PRV": lambda epsilon: (0.98 * epsilon - 0.02, 1.02 * epsilon + 0.02),
    "closed form": lambda epsilon: (0.99 * epsilon - 2e-3, 1.001 * epsilon + 1e-4),  # PLD rounds up
    "PLD": lambda epsilon: (epsilon, epsilon),
    "pure epsilon": lambda epsilon: (epsilon, epsilon),
}
"""Between which values a check must lie, given the deciding epsilon."""


@dataclass(frozen=True)
class Leaf:
    """An elementary event and how often it happens."""

    event: dp_event.DpEvent
    shape: Shape
    count: int


def cell_of(events: Sequence[dp_event.DpEvent], relation: Relation) -> Cell:
    """Return who decides about the composition of ``events``: whoever is valid for each of them.

    Edge cases: an event without a cell is a ValueError that names it.
    """
    shapes = {leaf.shape for leaf in leaves(events)} or {"nothing"}
    cells = []
    for shape in sorted(shapes):
        if (shape, relation) not in TABLE:
            raise ValueError(
                f"no accountant is known to be right for a {shape} event under {relation}; the table in "
                "stages/privacy/accountants.py has "
                + ", ".join(f"{known} under {under}" for known, under in TABLE)
            )
        cells.append(TABLE[shape, relation])
    if all(cell.deciding == "pure epsilon" for cell in cells):
        return Cell("pure epsilon", ())
    others = set.intersection(*(set(cell.checks) for cell in cells))
    return Cell("PLD", tuple(name for name in ("RDP", "PRV", "closed form") if name in others))


def leaves(events: Sequence[dp_event.DpEvent]) -> list[Leaf]:
    """Return the elementary events of a composition, those that do nothing left out.

    Gaussians on one Poisson sample are one event, of noise ``(sum of sigma_i ** -2) ** -0.5``.
    """
    return [leaf for event in events for leaf in _leaves(event, 1)]


def _leaves(event: dp_event.DpEvent, count: int) -> Iterator[Leaf]:
    if isinstance(event, dp_event.NoOpDpEvent) or count == 0:
        return
    if isinstance(event, dp_event.ComposedDpEvent):
        for part in event.events:
            yield from _leaves(part, count)
    elif isinstance(event, dp_event.SelfComposedDpEvent):
        yield from _leaves(event.event, count * event.count)
    elif isinstance(event, dp_event.GaussianDpEvent):
        yield Leaf(event, "Gaussian", count)
    elif isinstance(event, dp_event.LaplaceDpEvent):
        yield Leaf(event, "Laplace", count)
    elif isinstance(event, dp_event.PoissonSampledDpEvent):
        yield _sampled(event, count)
    else:
        raise _unknown(event)


def _sampled(event: dp_event.PoissonSampledDpEvent, count: int) -> Leaf:
    inner = leaves([event.event])
    if [leaf.shape for leaf in inner] == ["Laplace"] and inner[0].count == 1:
        return Leaf(event, "Poisson-sampled Laplace", count)
    if not inner or {leaf.shape for leaf in inner} != {"Gaussian"}:
        raise _unknown(event)
    sigma = effective_noise(inner)
    once = dp_event.PoissonSampledDpEvent(event.sampling_probability, dp_event.GaussianDpEvent(sigma))
    return Leaf(once, "Poisson-sampled Gaussian", count)


def effective_noise(gaussians: Sequence[Leaf]) -> float:
    """Return the noise multiplier of one Gaussian that reveals as much as all of these together."""
    noises = [(leaf.event.noise_multiplier, leaf.count) for leaf in gaussians]
    if len(noises) == 1 and noises[0][1] == 1:
        return float(noises[0][0])
    if any(noise == 0 for noise, _ in noises):
        return 0.0
    return float(sum(count / noise**2 for noise, count in noises) ** -0.5)


def _unknown(event: dp_event.DpEvent) -> ValueError:
    if isinstance(event, dp_event.RepeatAndSelectDpEvent):
        return ValueError(SELECTION)
    return ValueError(f"no accountant is known to be right for the event {event}")


def price(
    accountant: Accountant,
    events: Sequence[dp_event.DpEvent],
    delta: float,
    relation: Relation,
    *,
    grid: float,
) -> float:
    """Return the epsilon at ``delta`` of ``events`` composed, by one accountant, which must be valid.

    ``grid`` is PLD's discretisation: it rounds up to multiples of it. Whatever the accountant, pure epsilons
    are added to its price (basic composition): one is (epsilon, 0)-DP, whatever its dimension.

    Edge cases: at delta 0 anything but pure epsilons is infinite.
    """
    found = leaves(events)
    pure = math.fsum(leaf.count * pure_epsilon(leaf) for leaf in found if "Laplace" in leaf.shape)
    rest = [leaf for leaf in found if "Laplace" not in leaf.shape]
    if not rest:
        return pure
    return pure + (_PRICE[accountant](rest, delta, relation, grid) if delta else math.inf)


def pure_epsilon(leaf: Leaf) -> float:
    """Return the epsilon, at delta 0, of Laplace noise on numbers of bounded L1 norm, sampled or not.

    epsilon = 1 / b for noise b times the bound (Dwork and Roth 2014, Theorem 3.6), in any number of
    dimensions; ln(1 + q (e^epsilon - 1)) where a unit joins with chance q (Balle et al. 2018, Theorem 8).
    """
    event, rate = leaf.event, 1.0
    if isinstance(event, dp_event.PoissonSampledDpEvent):
        rate, event = event.sampling_probability, leaves([event.event])[0].event
    if not 0 <= rate <= 1 or not event.noise_multiplier >= 0:
        raise ValueError(f"no accountant is known to be right for the event {leaf.event}")
    once = 1 / event.noise_multiplier if event.noise_multiplier else math.inf
    if rate == 1 or once > _STEEP:
        return once
    return math.log1p(rate * math.expm1(once))


def within_known_gap(accountant: Accountant, check: float, deciding: float) -> bool:
    """Tell whether a check agrees with the deciding epsilon as well as the two are known to."""
    low, high = _KNOWN_GAPS[accountant](deciding)
    return low <= check <= high


def _pld(found: Sequence[Leaf], delta: float, relation: Relation, grid: float) -> float:
    accountant = pld.PLDAccountant(RELATIONS[relation], value_discretization_interval=grid)
    for leaf in found:
        accountant.compose(leaf.event, leaf.count)
    return float(accountant.get_epsilon(delta))


def _rdp(found: Sequence[Leaf], delta: float, relation: Relation, grid: float) -> float:
    """RDP ignores the relation of a plain Gaussian, so under replace-one it is asked at half the noise."""
    accountant = rdp.RdpAccountant(neighboring_relation=RELATIONS[relation])
    for leaf in found:
        accountant.compose(_seen_by(leaf, relation), leaf.count)
    return float(accountant.get_epsilon(delta))


def _seen_by(leaf: Leaf, relation: Relation) -> dp_event.DpEvent:
    if relation == "replace_one" and isinstance(leaf.event, dp_event.GaussianDpEvent):
        return dp_event.GaussianDpEvent(leaf.event.noise_multiplier / 2)
    return leaf.event


def _prv(found: Sequence[Leaf], delta: float, relation: Relation, grid: float) -> float:
    from opacus.accountants.prv import PRVAccountant  # loads all of Opacus, for an audit only

    accountant = PRVAccountant()
    accountant.history = [
        (leaf.event.event.noise_multiplier, leaf.event.sampling_probability, leaf.count) for leaf in found
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its RDP bound, which only cuts its grid, may be loose
        return float(accountant.get_epsilon(delta))


def _closed_form(found: Sequence[Leaf], delta: float, relation: Relation, grid: float) -> float:
    """Return the exact epsilon of composed Gaussians (Balle and Wang 2018, Theorem 8)."""
    mu = (1 if relation == "add_or_remove_one" else 2) / effective_noise(found)

    def excess(epsilon: float) -> float:
        tail = math.exp(epsilon + float(norm.logcdf(-epsilon / mu - mu / 2)))
        return float(norm.cdf(-epsilon / mu + mu / 2)) - tail - delta

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, mu * mu / 2 + mu * 40, xtol=1e-10))


_PRICE: Mapping[Accountant, Callable[[Sequence[Leaf], float, Relation, float], float]] = {
    "PLD": _pld,
    "RDP": _rdp,
    "PRV": _prv,
    "closed form": _closed_form,
}


def table_in_markdown() -> str:
    """Return the table as the documents show it."""
    lines = ["| event | relation | decides | checks |", "|---|---|---|---|"]
    for (shape, relation), cell in TABLE.items():
        checks = ", ".join(cell.checks) or "none"
        lines.append(f"| {shape} | {relation.replace('_', ' ')} | {cell.deciding} | {checks} |")
    return "\n".join(lines)
