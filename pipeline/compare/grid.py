"""What is compared, as ``presets/compare.yaml`` says: methods, epsilons, starts, ablations and controls."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.presets import leaves, merge, read_as
from stages.records.source import Source

Group = Literal["method", "ablation", "control"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method: what it sets in params.yaml, and the settings that are tried for it on public records."""

    name: str
    without_noise: bool
    """Whether it also runs without privacy, as the most that it can reach."""
    params: dict[str, Any]
    choose: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method with something else in one place, at one epsilon and with that method's settings."""

    name: str
    group: Literal["ablation", "control"]
    params: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Variants:
    """Ablations and controls of one method."""

    of: str
    epsilon: float
    starts: tuple[int, ...]
    list: tuple[Variant, ...]


@dataclass(frozen=True, kw_only=True)
class Quick:
    """What ``--quick`` runs instead."""

    epsilons: tuple[float, ...]
    starts: tuple[int, ...]
    settings: int
    """How many of each method's settings are tried."""
    without_noise: bool
    variants: bool
    params: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The whole of it."""

    epsilons: tuple[float, ...]
    starts: tuple[int, ...]
    """Values of ``seed.start``; every run draws a key of its own besides."""
    choose_starts: tuple[int, ...]
    """Those that settings are tried from; what counts is the mean."""
    stand_in: Source
    """Public records in the place of the private ones, to choose settings on."""
    params: dict[str, Any]
    """What every run sets."""
    reference: str
    """The method that costs are told relative to, as it runs without privacy."""
    methods: tuple[Method, ...]
    variants: Variants
    quick: Quick

    def __post_init__(self) -> None:
        """Refuse names that are not there, and methods that are not given equally many settings to try."""
        names = [method.name for method in self.methods]
        every = [*names, *(variant.name for variant in self.variants.list)]
        for name in (self.reference, self.variants.of):
            if name not in names:
                raise ValueError(f"there is no method '{name}' in the comparison; there are: {names}")
        if len(set(every)) < len(every):
            raise ValueError(f"two methods or variants of the comparison have the same name: {every}")
        if any(len({*named}) < len(named) for named in (self.epsilons, self.starts, self.choose_starts)):
            raise ValueError("the comparison names an epsilon or a start twice")
        if not (self.epsilons and self.starts and self.choose_starts and self.variants.starts):
            raise ValueError(
                "a comparison needs at least one epsilon and one start, its choices and variants too"
            )
        if not set(self.variants.starts) <= set(self.starts):
            raise ValueError("variants run from starts from which their method does not")
        if self.variants.list and self.variants.epsilon not in self.epsilons:
            raise ValueError(f"variants run at epsilon {self.variants.epsilon:g}, at which no method runs")
        if len({len(method.choose) for method in self.methods}) > 1 or not self.methods[0].choose:
            raise ValueError("every method of the comparison is to have equally many settings to choose from")
        if self.quick.settings < 1:
            raise ValueError("quick.settings of the comparison must be at least 1")

    def quickly(self) -> "Grid":
        """Return the grid that ``--quick`` runs."""
        params = deepcopy(self.params)
        _join(params, self.quick.params)
        return replace(
            self,
            epsilons=self.quick.epsilons,
            starts=self.quick.starts,
            choose_starts=self.quick.starts,
            params=params,
            methods=tuple(
                replace(
                    method,
                    choose=method.choose[: self.quick.settings],
                    without_noise=method.without_noise and self.quick.without_noise,
                )
                for method in self.methods
            ),
            variants=replace(
                self.variants,
                starts=self.quick.starts,
                list=self.variants.list if self.quick.variants else (),
            ),
        )


@dataclass(frozen=True)
class Arm:
    """One training run to be made: ``params`` is the whole of params.yaml for it."""

    name: str
    group: Group
    epsilon: float | None
    start: int
    params: dict[str, Any]


def read_grid(path: Path) -> Grid:
    """Return a comparison; one that is missing or broken is a ValueError that says so."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: name the file that says what to compare with --grid")
    return read_as(Grid, path)


def params_of(base: Mapping[str, Any], grid: Grid, *changes: dict[str, Any]) -> dict[str, Any]:
    """Return the whole of params.yaml with what every run sets and then ``changes``, later ones first."""
    params = deepcopy(dict(base))
    for change in (grid.params, *changes):
        merge(params, change, "the comparison")
    return params


def at(epsilon: float | None) -> dict[str, Any]:
    """Return what a budget sets; None is without privacy."""
    return {"estimator": {"kind": "nonprivate"}} if epsilon is None else {"privacy": {"epsilon": epsilon}}


def budgets(grid: Grid, method: Method) -> tuple[float | None, ...]:
    """Return the epsilons that a method runs at."""
    return (*grid.epsilons, None) if method.without_noise else grid.epsilons


Chosen = Mapping[tuple[str, float | None], dict[str, Any]]
"""What was chosen for each method at each epsilon."""


def arms(base: Mapping[str, Any], grid: Grid, chosen: Chosen) -> Iterator[Arm]:
    """Yield every run, those of one method together."""
    for method in grid.methods:
        for epsilon in budgets(grid, method):
            for start in grid.starts:
                more = (method.params, chosen[method.name, epsilon], at(epsilon), {"seed": {"start": start}})
                yield Arm(method.name, "method", epsilon, start, params_of(base, grid, *more))
    of, only = grid.variants.of, grid.variants.epsilon
    method = next(method for method in grid.methods if method.name == of)
    for variant in grid.variants.list:
        for start in grid.variants.starts:
            settings = (method.params, chosen[of, only], at(only), {"seed": {"start": start}})
            params = params_of(base, grid, *settings, variant.params)
            yield Arm(variant.name, variant.group, only, start, params)


def changed_keys(base: Mapping[str, Any], every: list[Arm]) -> list[str]:
    """Return the dotted keys that any run changes: each run spells them all, and inherits nothing."""
    before = {".".join(keys): value for keys, value in leaves(dict(base))}
    found = set()
    for arm in every:
        after = {".".join(keys): value for keys, value in leaves(arm.params)}
        found |= {key for key, value in after.items() if before.get(key) != value}
    return sorted(found)


def _join(params: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(params.get(key), dict):
            _join(params[key], value)
        else:
            params[key] = value
