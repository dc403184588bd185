"""Figures in the pages of docs/, put there from what was measured and committed: no figure is typed twice.

``python -m benchmarks.pages`` brings the pages up to date; ``--check`` exits 1 where one is not. A place is
marked ``<!-- figures: NAME -->`` and ``<!-- /figures -->``, and its figures come with their date and machine.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import default_run
from stages.core.files import read_json, write_text
from stages.privacy.accountants import table_in_markdown
from stages.privacy.accounting import Target
from stages.privacy.clipping_rule import Clipping
from stages.privacy.plan import read_plan
from stages.privacy.planning import plan_for
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling

DOCS = Path("docs")
_PLACE = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- /figures -->)", re.S)


def measured(path: Path, rows: Callable[[str], bool] = lambda line: True) -> str:
    """Return what a page says before its first table, when and where among it, and that table's ``rows``."""
    lines = path.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    about = "\n".join(line for line in lines[:start] if not line.startswith("#"))
    end = next((index for index in range(start, len(lines)) if not lines[index].startswith("|")), len(lines))
    chosen = [line for line in lines[start + 2 : end] if rows(line)]
    return "\n".join([about.strip(), "", *lines[start : start + 2], *chosen])


def noise_by_epsilon() -> str:
    """Return how much noise an epsilon takes under the committed plan, everything else as it is there."""
    plan = read_plan(read_json(Path("data/plan.json")), "data/plan.json")
    sampling, population = plan.sampling, plan.population
    lines = [
        f"{sampling.steps} steps, rate {sampling.rate:g}, expected batch {sampling.expected_batch:g}, "
        f"delta {plan.delta:g}; computed by `plan_for`.",
        "",
        "| epsilon | noise multiplier | the same, twice the steps | the same, half the rate and batch |",
        "|---|---|---|---|",
    ]
    half = Sampling(steps=sampling.steps, rate=sampling.rate / 2, expected_batch=sampling.expected_batch / 2)
    twice = Sampling(steps=2 * sampling.steps, rate=sampling.rate, expected_batch=sampling.expected_batch)
    for epsilon in (0.5, 1.0, 3.0, 8.0):
        target = Target(relation=plan.relation, epsilon=epsilon, delta=plan.delta)
        cells = [_noise(target, population, one, plan.clip) for one in (sampling, twice, half)]
        lines.append(f"| {epsilon:g} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join(lines)


def _noise(target: Target, population: Population, sampling: Sampling, clip: float | None) -> float:
    assert clip is not None
    found = plan_for("gradient", target, population, sampling, clipping=Clipping(clip), rows_per_unit=2)
    assert found.noise_multiplier is not None
    return found.noise_multiplier


FIGURES: Mapping[str, Callable[[], str]] = {
    "accountants": table_in_markdown,
    "default_run": lambda: default_run.render(read_json(Path("benchmarks/default_run.json"))),
    "compare": lambda: measured(Path("benchmarks/compare/README.md")),
    "compare_fashion_mnist": lambda: measured(Path("benchmarks/compare-fashion_mnist/README.md")),
    "methods": lambda: measured(Path("benchmarks/methods.md"), lambda line: "forward pass" not in line),
    "memory_7b": lambda: measured(
        Path("benchmarks/memory_7b.md"), lambda line: "llava" in line and "| 8 |" in line
    ),
    "token_pruning": lambda: measured(Path("benchmarks/token_pruning.md")),
    "family_table": lambda: measured(Path("benchmarks/family_table.md")),
    "step_cost": lambda: measured(Path("benchmarks/step_cost.md")),
    "scaling": lambda: measured(Path("benchmarks/scaling.md")),
    "process_memory": lambda: measured(Path("benchmarks/process_memory.md")),
    "encode_cost": lambda: measured(Path("benchmarks/encode_cost.md")),
    "evidence": lambda: measured(Path("benchmarks/evidence.md")),
    "canary_cost": lambda: measured(Path("benchmarks/canary_cost.md")),
    "faults": lambda: measured(Path("benchmarks/faults.md")),
    "noise_by_epsilon": noise_by_epsilon,
}


def with_figures(page: str) -> str:
    """Return a page with its figures in their places."""
    return _PLACE.sub(lambda place: f"{place[1]}\n{FIGURES[place[2]]()}\n\n{place[3]}", page)


def stale() -> dict[Path, str]:
    """Return the pages whose figures are not those that were measured, as they should be."""
    pages = {path: path.read_text() for path in sorted(DOCS.rglob("*.md"))}
    return {path: new for path, old in pages.items() if (new := with_figures(old)) != old}


def main() -> None:
    """Write the pages, or tell which ones are stale."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    given = options.parse_args()
    found = stale()
    for path, text in found.items():
        if given.check:
            print(f"{path} is stale: run python -m benchmarks.pages")
        else:
            write_text(path, text)
    if given.check and found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
