"""Settings of every method chosen on public records, and what its steps cost: kept, and asked for once."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from pipeline.compare.grid import Grid, Method, at, budgets, params_of
from pipeline.runner import Runner
from stages.core.canonical import canonical_json
from stages.core.files import read_json, write_json
from stages.core.scratch import scratch_folder

UNITS, PAIRS = 64, 7


@dataclass(frozen=True)
class Choice:
    """What was tried for a method at an epsilon, and what it reached on the stand-in, over all starts."""

    method: str
    epsilon: float | None
    tried: tuple[dict[str, Any], ...]
    accuracy: tuple[float, ...]

    @property
    def best(self) -> dict[str, Any]:
        """Return the settings that reached most; the first of equals."""
        return self.tried[max(range(len(self.tried)), key=lambda index: self.accuracy[index])]


Reached = dict[float | None, list[float]]
"""At each epsilon, the accuracy of each of a method's settings from one start."""
Found = Mapping[tuple[str, int], Reached]
"""By the method's name and the start."""


@dataclass(frozen=True)
class Rehearsals:
    """Asks processes of their own, and keeps their answers in scratch/compare."""

    runner: Runner
    base: Mapping[str, Any]
    grid: Grid
    code: str

    def choices(self, jobs: int, done: Callable[[], None]) -> list[Choice]:
        """Return what was chosen for every method at every epsilon; calls ``done`` for each of ``tries``."""
        with ThreadPoolExecutor(jobs) as pool:
            futures = {
                pool.submit(self.reached, method, budgets(self.grid, method), start): (method.name, start)
                for method, start in self.tries()
            }
            try:
                for future in as_completed(futures):
                    future.result()
                    done()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.runner.stop()
                raise
        found = {key: future.result() for future, key in futures.items()}
        return [
            self._choice(method, epsilon, found)
            for method in self.grid.methods
            for epsilon in budgets(self.grid, method)
        ]

    def tries(self) -> list[tuple[Method, int]]:
        """Return the methods that have a choice, each with every start."""
        methods = [method for method in self.grid.methods if len(method.choose) > 1]
        return [(method, start) for method in methods for start in self.grid.starts]

    def _choice(self, method: Method, epsilon: float | None, found: Found) -> Choice:
        if len(method.choose) == 1:
            return Choice(method.name, epsilon, method.choose, (0.0,))
        from_starts = [found[method.name, start][epsilon] for start in self.grid.starts]
        return Choice(method.name, epsilon, method.choose, tuple(map(fmean, zip(*from_starts, strict=True))))

    def reached(self, method: Method, epsilons: Sequence[float | None], start: int) -> Reached:
        """Return what the settings reach on the stand-in from one start: runs in a row share its learner."""
        keys = [(epsilon, settings) for epsilon in epsilons for settings in method.choose]
        own = (self.base, self.grid, method.params)
        runs = [
            params_of(*own, settings, at(epsilon), {"seed": {"start": start}}) for epsilon, settings in keys
        ]
        accuracies = self._asked({"what": "accuracies", "runs": runs}, f"settings of {method.name}")
        found: Reached = {}
        for (epsilon, _), accuracy in zip(keys, accuracies, strict=True):
            found.setdefault(epsilon, []).append(accuracy)
        return found

    def costs(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return time and bytes of a step of each run, relative to the first, and the machine."""
        request = {"what": "costs", "runs": runs, "units": UNITS, "pairs": PAIRS}
        found: dict[str, Any] = self._asked(request, "costs")
        return found

    def _asked(self, request: dict[str, Any], name: str) -> Any:
        stand_in = {**asdict(self.grid.stand_in), "path": str(self.grid.stand_in.path)}
        whole = {**request, "stand_in": stand_in, "code": self.code}
        key = hashlib.sha256(canonical_json(whole)).hexdigest()[:32]
        folder = scratch_folder("compare", "asked")
        answer = folder / f"{key}.answer.json"
        if not answer.is_file():
            write_json(folder / f"{key}.json", whole)
            paths = [str(folder / f"{key}.json"), str(answer)]
            self.runner.program("stages.training.rehearse", *paths, name=name)
        return read_json(answer)
