"""What a comparison found, as CSV and as a Markdown table."""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pipeline.compare.grid import Arm, Group


@dataclass(frozen=True)
class Run:
    """One training run and what it reached, in shares of all held-out rows."""

    name: str
    group: Group
    epsilon: float | None
    """Asked for; None without privacy."""
    spent: float | None
    """What its statement says."""
    delta: float
    start: int
    accuracy: float
    low: float
    high: float
    """The 95 % Wilson interval of this run's held-out rows."""
    zero_shot: float
    rows: int
    experiment: str

    @classmethod
    def of(cls, arm: Arm, name: str, metrics: dict[str, Any], statement: dict[str, Any]) -> "Run":
        """Read what a run left."""
        tuned, zero_shot = metrics["tuned"]["all"], metrics["zero_shot"]["all"]
        return cls(
            name=arm.name,
            group=arm.group,
            epsilon=arm.epsilon,
            spent=None if arm.epsilon is None else statement["epsilon"],
            delta=statement["delta"],
            start=arm.start,
            accuracy=tuned["accuracy"],
            low=tuned["low"],
            high=tuned["high"],
            zero_shot=zero_shot["accuracy"],
            rows=tuned["rows"],
            experiment=name,
        )


@dataclass(frozen=True)
class Cost:
    """A step with privacy beside one of the reference without."""

    name: str
    time: float
    low: float
    high: float
    bytes: float


@dataclass(frozen=True)
class Cell:
    """The runs of one method at one epsilon, from several starts."""

    name: str
    group: Group
    epsilon: float | None
    runs: tuple[Run, ...]

    @property
    def mean(self) -> float:
        """Return the mean accuracy."""
        return statistics.mean(run.accuracy for run in self.runs)

    @property
    def beats_zero_shot(self) -> bool:
        """Tell whether the mean is above zero-shot by more than one run's sampling error of held-out rows."""
        half = statistics.mean((run.high - run.low) / 2 for run in self.runs)
        return self.mean - statistics.mean(run.zero_shot for run in self.runs) > half

    def words(self) -> str:
        """Return the mean and the range over starts, in per cent."""
        found = [run.accuracy for run in self.runs]
        if len(found) == 1:
            return f"{100 * found[0]:.1f}"
        return f"{100 * self.mean:.1f} ({100 * min(found):.1f}-{100 * max(found):.1f})"


def cells(runs: Iterable[Run]) -> list[Cell]:
    """Return runs by name and epsilon, in the order in which they come."""
    found: dict[tuple[str, Group, float | None], list[Run]] = {}
    for run in runs:
        found.setdefault((run.name, run.group, run.epsilon), []).append(run)
    return [Cell(*key, tuple(own)) for key, own in found.items()]


def csv_of(runs: Sequence[Run], costs: Sequence[Cost], settings: dict[tuple[str, float | None], str]) -> str:
    """Return one line a run, its costs and chosen settings beside it."""
    by_name = {cost.name: cost for cost in costs}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(field.name for field in fields(Run)), "time_ratio", "bytes_ratio", "settings"])
    for run in runs:
        cost = by_name.get(run.name) if run.epsilon is not None else None
        values = ["" if value is None else value for value in vars(run).values()]
        ratios = ["", ""] if cost is None else [f"{cost.time:.4f}", f"{cost.bytes:.4f}"]
        writer.writerow([*values, *ratios, settings.get((run.name, run.epsilon), "")])
    return text.getvalue()


def methods_table(runs: Sequence[Run], costs: Sequence[Cost]) -> str:
    """Return accuracy of each method at each epsilon, and the costs of its step with privacy."""
    own = [cell for cell in cells(runs) if cell.group == "method"]
    epsilons = list(dict.fromkeys(cell.epsilon for cell in own if cell.epsilon is not None))
    heads = [f"epsilon {epsilon:g}" for epsilon in epsilons] + ["no privacy"]
    by = {(cell.name, cell.epsilon): cell for cell in own}
    by_name = {cost.name: cost for cost in costs}
    lines = [
        "| method | " + " | ".join(heads) + " | time of a step | bytes of a step |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for name in dict.fromkeys(cell.name for cell in own):
        found = [by.get((name, epsilon)) for epsilon in (*epsilons, None)]
        shown = ["-" if cell is None else _marked(cell) for cell in found]
        lines.append(f"| {name} | " + " | ".join([*shown, *_costs(by_name.get(name))]) + " |")
    return "\n".join(lines)


def variants_table(
    runs: Sequence[Run], costs: Sequence[Cost], of: str, epsilon: float, starts: Sequence[int]
) -> str:
    """Return ablations and controls beside the method that they are of, all from the same starts."""
    found = cells(runs)
    whole = next(cell for cell in found if cell.name == of and cell.epsilon == epsilon)
    base = replace(whole, runs=tuple(run for run in whole.runs if run.start in starts))
    by_name = {cost.name: cost for cost in costs}
    lines = [
        f"| {of} at epsilon {epsilon:g} | accuracy, % | points | time of a step | bytes of a step |",
        "|---" * 5 + "|",
    ]
    for cell in [base, *(cell for cell in found if cell.group != "method")]:
        what = "as it is" if cell is base else f"{cell.name} ({cell.group})"
        points = "" if cell is base else f"{100 * (cell.mean - base.mean):+.1f}"
        row = [what, _marked(cell), points, *_costs(by_name.get(cell.name))]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _marked(cell: Cell) -> str:
    return cell.words() + ("" if cell.beats_zero_shot else " *")


def _costs(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["-", "-"]
    return [f"{cost.time:.2f} ({cost.low:.2f}-{cost.high:.2f})", f"{cost.bytes:.3f}"]
