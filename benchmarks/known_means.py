"""Which of the field's means help Dual-Priv under privacy, tried on public records alone.

``python -m benchmarks.known_means --json FILE``. The means are those of
``benchmarks/grids/known_means.yaml``, the first of which is what the others change; each trains with its two
settings from every start, and is told at the better of them. Nothing private is learned from or charged.
"""

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import about
from pipeline.compare.clones import PreparedClone, Revision
from pipeline.compare.experiments import code_key, inputs_of_all
from pipeline.compare.grid import Grid, Method, read_grid
from pipeline.compare.rehearsals import Rehearsals
from pipeline.compare.surroundings import alone, of_the_checkout, threads_of
from pipeline.presets import leaves
from stages.core.files import write_json, write_text
from stages.core.params import read_params
from stages.core.scratch import scratch_folder

JOBS = 2


@dataclass(frozen=True)
class Mean:
    """What a mean reached from every start, at its better setting."""

    name: str
    setting: str
    accuracy: tuple[float, ...]

    @property
    def middle(self) -> float:
        """Return the mean over the starts."""
        return statistics.fmean(self.accuracy)


def reached(asked: Rehearsals, method: Method) -> Mean:
    """Train one mean with every setting from every start."""
    is_private = method.params.get("estimator", {}).get("kind") != "nonprivate"
    epsilon = asked.grid.epsilons[0] if is_private else None
    from_starts = [asked.reached(method, (epsilon,), start)[epsilon] for start in asked.grid.starts]
    means = [
        Mean(method.name, _said(settings), own)
        for settings, own in zip(method.choose, zip(*from_starts, strict=True), strict=True)
    ]
    return max(means, key=lambda mean: mean.middle)


def _said(settings: dict[str, Any]) -> str:
    return ", ".join(f"{keys[-1].replace('_', ' ')} {value:g}" for keys, value in leaves(settings))


def table(grid: Grid, means: list[Mean], where: str) -> str:
    """Return Markdown; differences are paired by the start."""
    lines = [
        "# Known means, tried on public records",
        "",
        f"`python -m benchmarks.known_means --json FILE`; {where}. Dual-Priv at epsilon {grid.epsilons[0]:g} "
        f"on the stand-in; {len(grid.starts)} starts, the better of two settings; held-out rows answered "
        "exactly, %: mean and range; points against the first row, paired by the start: mean and range.",
        "",
        "| mean | at | accuracy | points |",
        "|---|---|---|---|",
    ]
    first = means[0]
    for mean in means:
        own = mean.accuracy
        points = [100 * (mine - base) for mine, base in zip(own, first.accuracy, strict=True)]
        gain = (
            ""
            if mean is first
            else f"{statistics.fmean(points):+.1f} ({min(points):+.1f} to {max(points):+.1f})"
        )
        span = f"({100 * min(own):.1f}-{100 * max(own):.1f})"
        lines.append(f"| {mean.name} | {mean.setting} | {100 * mean.middle:.1f} {span} | {gain} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try all of them; write the figures and print the table, which goes beside them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--grid", type=Path, default=Path("benchmarks/grids/known_means.yaml"))
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    root, grid, base = Path.cwd(), read_grid(given.grid), read_params()
    read = inputs_of_all(base, grid)
    revision = Revision.of(root, read)
    prepared = PreparedClone(revision, scratch_folder("compare", "clones") / "prepared")
    asked = Rehearsals(prepared, base, grid, code_key(root, read, revision.commit))
    with alone(), of_the_checkout(), threads_of(JOBS, 0), ThreadPoolExecutor(JOBS) as pool:
        means = list(pool.map(lambda method: reached(asked, method), grid.methods))
    prepared.remove()
    write_json(
        given.json, {mean.name: {"setting": mean.setting, "accuracy": mean.accuracy} for mean in means}
    )
    found = table(grid, means, about())
    write_text(given.json.with_suffix(".md"), found)
    print(found)


if __name__ == "__main__":
    main()
