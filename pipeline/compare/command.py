"""The command ``dualpriv compare``: settings from public records, the grid, its tables and charts."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from pipeline.compare.experiments import code_key, experiments_of, known, lend_identity, result, run_missing
from pipeline.compare.figures import charts
from pipeline.compare.grid import Arm, Grid, arms, at, budgets, params_of, read_grid
from pipeline.compare.page import page
from pipeline.compare.rehearsals import Choice, Rehearsals
from pipeline.compare.table import Cost, Run, csv_of
from pipeline.presets import leaves
from pipeline.runner import Runner, StageFailed
from stages.core.files import write_text
from stages.core.params import read_params, read_section
from stages.core.progress import progress
from stages.privacy.population import Population

THREADS = "DUALPRIV_SPEED_THREADS"


def compare_command(path: Path, out: Path, *, quick: bool, jobs: int) -> None:
    """Run what is missing of the comparison and write it to ``out``; exit 2 for a mistake, 1 if a run fails.

    Runs are DVC experiments: found again by a later call, and no file of the checkout but ``out`` changes.
    """
    whole = read_grid(path)
    grid, root = whole.quickly() if quick else whole, Path.cwd()
    base = read_params()
    _require_public(read_section(base, "population", Population))
    lend_identity(root)
    signal.signal(signal.SIGTERM, _interrupt)
    data = params_of(base, grid)["data"]
    records = (Path(data["private"]["path"]), Path(data["public"]["path"]), grid.stand_in.path)
    code, runner = code_key(root, records), Runner(root)
    asked = Rehearsals(runner, base, grid, code)
    own_threads = os.environ.get(THREADS)
    try:
        os.environ[THREADS] = own_threads or str(max(1, (os.cpu_count() or 1) // jobs))
        choices = _choices(asked, grid, jobs)
        chosen = {(choice.method, choice.epsilon): choice.best for choice in choices}
        every = list(arms(base, grid, chosen))
        runs = _runs(root, runner, base, every, code, grid.copied, jobs)
        os.environ[THREADS] = own_threads or "0"
        costs, where = _costs(asked, grid, every)
    except StageFailed as failure:
        said = "\n".join(failure.tail)
        print(f"{said}\ndualpriv: {failure}", file=sys.stderr)
        raise typer.Exit(2 if failure.is_mistake else 1) from None
    settings = {(choice.method, choice.epsilon): _spelled(choice) for choice in choices}
    found = page(grid, runs, costs, choices, where, path, quick=quick)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "results.csv", csv_of(runs, costs, settings))
    for name, chart in charts(runs, costs).items():
        write_text(out / f"{name}.svg", chart)
    write_text(out / "README.md", found)
    print(found)


def _require_public(population: Population) -> None:
    if not population.public:
        raise ValueError(
            f"every run of a comparison is a release, and population '{population.name}' is not public: "
            "compare on public records, and fine-tune these people's once, with what did best"
        )


def _choices(asked: Rehearsals, grid: Grid, jobs: int) -> list[Choice]:
    total = sum(len(budgets(grid, method)) for method in grid.methods)
    with progress("compare: settings", total) as advance:
        done = iter(range(1, total + 1))
        return asked.choices(jobs, lambda name: advance(next(done)))


def _runs(
    root: Path,
    runner: Runner,
    base: dict[str, Any],
    every: list[Arm],
    code: str,
    copied: Sequence[str],
    jobs: int,
) -> list[Run]:
    """Return all runs; those that no earlier call has made are made now."""
    experiments = experiments_of(base, every, code)
    made = known(root)
    missing = [each for each in {each.name: each for each in experiments}.values() if each.name not in made]
    with progress("compare: runs", len(missing), rate=True) as advance:
        done = iter(range(1, len(missing) + 1))
        run_missing(runner, missing, copied, jobs, lambda each: advance(next(done)))
    made = known(root)
    return [Run.of(each.arm, each.name, *result(root, made[each.name])) for each in experiments]


def _costs(asked: Rehearsals, grid: Grid, every: list[Arm]) -> tuple[list[Cost], str]:
    """Measure a step of every method and variant beside one of the reference without privacy."""
    arm_of = {(arm.name, arm.epsilon is None): arm for arm in every}
    reference = next(arm for arm in every if arm.name == grid.reference)
    plain = params_of(reference.params, grid, at(None))
    wanted = [arm for arm in arm_of.values() if arm.epsilon is not None]
    with progress("compare: costs", 1) as advance:
        found = asked.costs([plain, *(arm.params for arm in wanted)])
        advance(1)
    costs = [
        Cost(arm.name, row["time"], row["low"], row["high"], row["bytes"])
        for arm, row in zip(wanted, found["rows"][1:], strict=True)
    ]
    return costs, found["about"]


def _spelled(choice: Choice) -> str:
    return " ".join(f"{'.'.join(keys)}={value}" for keys, value in leaves(choice.best))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
