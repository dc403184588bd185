"""Settings of every method chosen on public records, and what its steps cost: kept, and asked for once."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.compare.clones import PreparedClone
from pipeline.compare.experiments import deciding
from pipeline.compare.grid import Grid, Method, at, budgets, params_of
from stages.core.canonical import canonical_digest
from stages.core.files import read_json, write_json
from stages.core.scratch import scratch_folder

UNITS, PAIRS = 64, 7


@dataclass(frozen=True)
class Choice:
    """What was tried for a method at an epsilon, and what it reached on the stand-in, over the starts."""

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
    """Asks processes of their own in a clone, and keeps their answers in scratch/compare."""

    clone: PreparedClone
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
                self.clone.stop()
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
        return [(method, start) for method in methods for start in self.grid.choose_starts]

    def _choice(self, method: Method, epsilon: float | None, found: Found) -> Choice:
        if len(method.choose) == 1:
            return Choice(method.name, epsilon, method.choose, (0.0,))
        from_starts = [found[method.name, start][epsilon] for start in self.grid.choose_starts]
        return Choice(method.name, epsilon, method.choose, tuple(map(fmean, zip(*from_starts, strict=True))))

    def reached(self, method: Method, epsilons: Sequence[float | None], start: int) -> Reached:
        """Return what the settings reach on the stand-in from one start: runs in a row share its learner."""
        keys = [(epsilon, settings) for epsilon in epsilons for settings in method.choose]
        own = (self.base, self.grid, method.params)
        runs = [
            params_of(*own, settings, at(epsilon), {"seed": {"start": start}}) for epsilon, settings in keys
        ]
        accuracies = self._accuracies(runs, f"settings of {method.name}")
        found: Reached = {}
        for (epsilon, _), accuracy in zip(keys, accuracies, strict=True):
            found.setdefault(epsilon, []).append(accuracy)
        return found

    def _accuracies(self, runs: list[dict[str, Any]], name: str) -> list[float]:
        """Return what runs reach; those that were never asked about are tried together."""
        kept = [self._kept({"what": "accuracy", "run": deciding(run)}) for run in runs]
        missing = [place for place, answer in enumerate(kept) if not answer.is_file()]
        if missing:
            request = {"what": "accuracies", "runs": [runs[place] for place in missing]}
            for place, accuracy in zip(missing, self._asked(request, name), strict=True):
                write_json(kept[place], {"accuracy": accuracy})
        return [float(read_json(answer)["accuracy"]) for answer in kept]

    def costs(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return time and bytes of a step of each run, relative to the first, and the machine."""
        request = {"what": "costs", "runs": runs, "units": UNITS, "pairs": PAIRS}
        kept = self._kept(request)
        if not kept.is_file():
            write_json(kept, self._asked(request, "costs"))
        found: dict[str, Any] = read_json(kept)
        return found

    def _kept(self, asked: Mapping[str, Any]) -> Path:
        """Return where the answer is kept; what changes with the records and the code changes its name."""
        return scratch_folder("compare", "asked") / f"{self._key(asked)}.answer.json"

    def _key(self, asked: Mapping[str, Any]) -> str:
        return canonical_digest(self._whole(asked))[:32]

    def _whole(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        stand_in = {**asdict(self.grid.stand_in), "path": str(self.grid.stand_in.path)}
        return {**asked, "stand_in": stand_in, "code": self.code}

    def _asked(self, request: dict[str, Any], name: str) -> Any:
        """Return what a process of its own answers."""
        asked = scratch_folder("compare", "asked") / f"{self._key(request)}-{uuid.uuid4().hex[:8]}.json"
        answer = asked.with_suffix(".new.json")
        write_json(asked, self._whole(request))
        self.clone.runner().program("stages.training.rehearse", str(asked), str(answer), name=name)
        found = read_json(answer)
        asked.unlink()
        answer.unlink()
        return found
