"""The command ``dualpriv sweep``: a run for every combination of values, and one table."""

import csv
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.compare.clones import Clone, Revision
from pipeline.compare.experiments import code_key, inputs_of, known, require_records
from pipeline.compare.surroundings import alone, failures_told, of_the_checkout, threads_of, with_identity
from pipeline.runner import interrupted_by_sigterm
from pipeline.sweep.points import Point, combinations, points_of
from stages.core.files import sha256, write_text
from stages.core.params import read_params, read_section
from stages.core.scratch import scratch_folder
from stages.privacy.population import Population

SERVER_PATIENCE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
"""Prefect reads it when it is imported; its own 20 s are too few where it first makes its database."""


def sweep_command(path: Path, out: Path, *, jobs: int, spend: bool) -> None:
    """Run what is missing of the sweep and write its table; exit 2 for a mistake, 1 if a run fails."""
    root, base = Path.cwd(), read_params()
    every = combinations(path, base)
    for _, params in every:
        require_records(params)
    revision = Revision.of(root, set().union(*(inputs_of(params) for _, params in every)))
    interrupted_by_sigterm()
    points = points_of(every, inputs_as_of(revision))
    populations = [read_section(dict(point.params), "population", Population) for point in points]
    is_public = all(population.public for population in populations)
    missing = {point.name for point in points} - set(known(root, "sweep"))
    for population in populations:
        _require_meant(population, len(missing), population.public or spend)
    jobs = min(jobs if is_public else 1, max(1, len(missing)))  # releases on people follow one another
    os.environ.setdefault(SERVER_PATIENCE, "180")  # of a server of its own, where none is named
    from pipeline.sweep.flow import Clones, sweep

    with failures_told(), alone(), with_identity(root), threads_of(jobs, base["speed"]["threads"]):
        with of_the_checkout(new_release=is_public), _clones(revision, jobs * bool(missing)) as clones:
            with _last_word():
                rows = sweep(root, points, Clones(clones), jobs)
    write_text(out, csv_of(rows))
    Console().print(shown(rows, points))
    print(f"{len(rows)} runs, {len(missing)} of them new; {out}")


def inputs_as_of(revision: Revision) -> Callable[[Mapping[str, Any]], str]:
    """Return what names code and records of a run; records that several runs read are looked at once."""
    digest = cache(sha256)
    return lambda params: code_key(revision.root, inputs_of(params), revision.commit, digest)


def _require_meant(population: Population, releases: int, is_meant: bool) -> None:
    if releases and not is_meant:
        raise ValueError(
            f"this sweep is {releases} releases on population '{population.name}', which is not public: say "
            "--spend if that is meant; each is charged, and the ledger's limit stands"
        )


@contextmanager
def _last_word() -> Iterator[None]:
    """Leave the last line to the command: Prefect says goodbye of its own server when the process ends."""
    try:
        yield
    finally:
        logging.getLogger("prefect").setLevel(logging.WARNING)


@contextmanager
def _clones(revision: Revision, count: int) -> Iterator[list[Clone]]:
    folder = scratch_folder("sweep", "clones")
    found: list[Clone] = []
    try:
        for job in range(count):
            found.append(revision.clone(folder / str(job)))
        yield found
    finally:
        for clone in found:
            clone.runner.stop()
            clone.remove()


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def shown(rows: Sequence[dict[str, Any]], points: Sequence[Point]) -> Table:
    """Return the rows for a terminal."""
    table = Table(title="Exact answers on held-out records, %", title_justify="left")
    keys = list(points[0].values)
    for name in (*keys, "zero-shot", "fine-tuned", "epsilon"):
        table.add_column(name, justify="right")
    for row in rows:
        percent = [f"{100 * row[name]:.1f}" for name in ("zero_shot", "accuracy")]
        epsilon = "none" if row["epsilon"] is None else f"{row['epsilon']:.4g}"
        table.add_row(*(str(row[key]) for key in keys), *percent, epsilon)
    return table
