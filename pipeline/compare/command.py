"""The command ``dualpriv compare``: settings from public records, the grid, its tables and charts."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from pipeline.compare.clones import PreparedClone, Revision
from pipeline.compare.experiments import (
    Experiment,
    code_key,
    experiments_of,
    inputs_of_all,
    known,
    result,
    run_missing,
)
from pipeline.compare.figures import charts
from pipeline.compare.grid import Arm, Grid, arms, at, params_of, read_grid
from pipeline.compare.html import html_page
from pipeline.compare.page import page
from pipeline.compare.rehearsals import Choice, Rehearsals
from pipeline.compare.surroundings import alone, failures_told, of_the_checkout, threads_of, with_identity
from pipeline.compare.table import Cost, Run, csv_of
from pipeline.presets import leaves, merge
from pipeline.runner import interrupted_by_sigterm
from stages.core.files import write_text
from stages.core.params import PARAMS, read_params, read_section
from stages.core.progress import progress
from stages.core.scratch import scratch_folder
from stages.privacy.population import Population


def compare_command(path: Path, out: Path, *, quick: bool, jobs: int) -> None:
    """Run what is missing of the comparison and write it to ``out``; exit 2 for a mistake, 1 if a run fails.

    Runs are DVC experiments, each a release of a public population that the ledger records, made in private
    clones and found again by a later call. No file of the checkout but ``out`` changes.
    """
    whole = read_grid(path)
    grid, root = whole.quickly() if quick else whole, Path.cwd()
    base = read_params()
    _require_ready(base, grid)
    read = inputs_of_all(base, grid)
    revision = Revision.of(root, read)
    interrupted_by_sigterm()
    code = code_key(root, read, revision.commit)
    with failures_told(), alone(), with_identity(root), of_the_checkout():
        folder = scratch_folder("compare", "clones")
        prepared = PreparedClone(revision, folder / "prepared")
        asked = Rehearsals(prepared, base, grid, code)
        with threads_of(jobs, base["speed"]["threads"]):
            choices = _choices(asked, jobs)
            chosen = {(choice.method, choice.epsilon): choice.best for choice in choices}
            every = list(arms(base, grid, chosen))
            experiments = experiments_of(base, every, code)
            runs = _runs(revision, experiments, folder, jobs)
        costs, where = _costs(asked, grid, every)
        prepared.remove()
    found = page(grid, runs, costs, choices, where, path, quick=quick)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "results.csv", csv_of(runs, costs, settings_of(grid, choices)))
    pictures = {f"{name}.svg": chart for name, chart in charts(runs, costs).items()}
    for name, chart in pictures.items():
        write_text(out / name, chart)
    write_text(out / "README.md", found)
    write_text(out / "index.html", html_page(found, pictures))
    print(found)


def _require_ready(base: dict[str, Any], grid: Grid) -> None:
    """Refuse, before anything runs, people who are not public, here and in what the comparison builds on."""
    _require_free_choices(base)
    for method in grid.methods:
        params = params_of(base, grid, method.params)
        _require_public(read_section(params, "population", Population), params)


def _require_free_choices(base: dict[str, Any]) -> None:
    population = read_section(base, "population", Population)
    said = (base["profile"]["on"], base["calibrate"]["on"])
    if not population.public and said != ("public", "public"):
        raise ValueError(
            f"before a comparison, profile and calibrate run as {PARAMS} has them, and there they look at "
            f"population '{population.name}', which is not public: set profile.on and calibrate.on to public"
        )


def _require_public(population: Population, params: dict[str, Any]) -> None:
    if not population.public:
        raise ValueError(
            f"every run of a comparison is a release, and population '{population.name}' is not public: "
            "compare on public records, and fine-tune these people's once, with what did best"
        )
    said = (params["profile"]["on"], params["calibrate"]["on"], params["evaluate"]["release"])
    if said != ("public", "public", "public"):
        raise ValueError(
            "settings are chosen for runs whose other choices cost nothing: set profile.on, calibrate.on and "
            "evaluate.release to public"
        )


def _choices(asked: Rehearsals, jobs: int) -> list[Choice]:
    total = len(asked.tries())
    with progress("compare: settings", total) as advance:
        done = iter(range(1, total + 1))
        return asked.choices(jobs, lambda: advance(next(done)))


def _runs(revision: Revision, experiments: list[Experiment], folder: Path, jobs: int) -> list[Run]:
    """Return all runs; those that no earlier call has made are made now, in clones below ``folder``."""
    root = revision.root
    made = known(root)
    missing = [each for each in {each.name: each for each in experiments}.values() if each.name not in made]
    with progress("compare: runs", len(missing), rate=True) as advance:
        clones = [revision.clone(folder / str(job)) for job in range(min(jobs, len(missing)))]
        done = iter(range(1, len(missing) + 1))
        run_missing(clones, missing, lambda: advance(next(done)))
        for clone in clones:
            clone.remove()
    made = known(root)
    lost = [each.name for each in experiments if each.name not in made]
    if lost:
        raise ValueError(f"experiments {lost[:3]} have ended without results: compare again")
    return [Run.of(each.arm, each.name, *result(root, each.name, made[each.name])) for each in experiments]


def _costs(asked: Rehearsals, grid: Grid, every: list[Arm]) -> tuple[list[Cost], str]:
    """Measure a step of every method and variant beside one of the reference without privacy."""
    arm_of = {arm.name: arm for arm in every if arm.epsilon is not None}
    plain = deepcopy(arm_of[grid.reference].params)
    merge(plain, at(None), "the comparison")
    with progress("compare: costs", 1) as advance:
        found = asked.costs([plain, *(arm.params for arm in arm_of.values())])
        advance(1)
    costs = [
        Cost(name, row["time"], row["low"], row["high"], row["bytes"])
        for name, row in zip(arm_of, found["rows"][1:], strict=True)
    ]
    return costs, found["about"]


def settings_of(grid: Grid, choices: list[Choice]) -> dict[tuple[str, float | None], str]:
    """Return what was chosen, in words, for methods and for variants, which take their method's."""
    found = {(choice.method, choice.epsilon): choice for choice in choices}
    for variant in grid.variants.list:
        found[variant.name, grid.variants.epsilon] = found[grid.variants.of, grid.variants.epsilon]
    return {
        key: " ".join(f"{'.'.join(keys)}={value}" for keys, value in leaves(choice.best))
        for key, choice in found.items()
    }
