"""Tables and charts say what the runs say."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compare.figures import charts
from pipeline.compare.grid import read_grid
from pipeline.compare.page import page
from pipeline.compare.rehearsals import Choice
from pipeline.compare.table import Cost, Run, cells, csv_of, methods_table, variants_table

GRID = read_grid(Path(__file__).parents[3] / "presets/compare.yaml")
RUN = Run("Dual-Priv", "method", 8.0, 7.99, 1e-5, 0, 0.84, 0.83, 0.85, 0.79, 3000, "compare-1")
COSTS = [Cost("Dual-Priv", 0.4, 0.3, 0.5, 0.37), Cost("DP-SGD", 1.0, 0.9, 1.1, 1.004)]


def runs_of(name: str, epsilon: float | None, *accuracy: float, group: str = "method") -> list[Run]:
    spent = None if epsilon is None else epsilon - 0.01
    return [
        replace(
            RUN,
            name=name,
            epsilon=epsilon,
            spent=spent,
            start=start,
            accuracy=found,
            low=found - 0.01,
            high=found + 0.01,
            group=group,  # type: ignore[arg-type]
        )
        for start, found in enumerate(accuracy)
    ]


RUNS = [
    *runs_of("Dual-Priv", 3.0, 0.80, 0.82),
    *runs_of("Dual-Priv", 8.0, 0.84, 0.86),
    *runs_of("Dual-Priv", None, 0.88, 0.88),
    *runs_of("DP-SGD", 3.0, 0.79, 0.795),
    *runs_of("DP-SGD", 8.0, 0.85, 0.85),
    *runs_of("random tokens", 8.0, 0.80, 0.81, group="control"),
]


def test_a_cell_is_the_mean_and_the_range_and_marked_where_it_is_not_above_zero_shot() -> None:
    lines = methods_table(RUNS, COSTS).splitlines()
    assert lines[0].startswith("| method | epsilon 3 | epsilon 8 | no privacy | time of a step |")
    assert lines[2] == (
        "| Dual-Priv | 81.0 (80.0-82.0) | 85.0 (84.0-86.0) | 88.0 (88.0-88.0) | 0.40 (0.30-0.50) | 0.370 |"
    )
    assert lines[3].startswith("| DP-SGD | 79.2 (79.0-79.5) * | 85.0 (85.0-85.0) | - | 1.00")
    assert not any("random" in line for line in lines)
    assert [len(cell.runs) for cell in cells(RUNS)] == [2] * 6


def test_variants_stand_beside_their_method() -> None:
    lines = variants_table(RUNS, COSTS, "Dual-Priv", 8.0, (0, 1)).splitlines()
    assert lines[2].startswith("| as it is | 85.0 (84.0-86.0) |  | 0.40")
    assert lines[3] == "| random tokens (control) | 80.5 (80.0-81.0) | -4.5 | - | - |"


def test_the_csv_holds_every_run_with_its_costs_and_settings() -> None:
    found = list(csv.DictReader(io.StringIO(csv_of(RUNS, COSTS, {("Dual-Priv", 8.0): "optim.x=1"}))))
    assert len(found) == len(RUNS)
    assert {float(row["accuracy"]) for row in found} == {run.accuracy for run in RUNS}
    assert [row["settings"] for row in found[2:4]] == ["optim.x=1"] * 2
    assert found[2]["time_ratio"] == "0.4000" and found[4]["epsilon"] == found[4]["time_ratio"] == ""


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.85, "met"), (0.80, "missed"), (0.90, "met")])
def test_targets_are_told_as_they_are(accuracy: float, verdict: str) -> None:
    runs = [*runs_of("Dual-Priv", 8.0, accuracy), *runs_of("Dual-Priv", None, 0.88)]
    runs += runs_of("DP-SGD", 8.0, 0.84)
    choices = [Choice("Dual-Priv", 8.0, ({"optim": {"learning_rate": 0.1}}, {}), (0.5, 0.4))]
    plain = replace(GRID, variants=replace(GRID.variants, list=()))
    text = page(plain, runs, COSTS, choices, "today, here", Path("presets/compare.yaml"), quick=True)
    apart, lost = 100 * (accuracy - 0.84), 100 * (0.88 - accuracy)
    assert f"- Dual-Priv against DP-SGD at epsilon 8: {apart:+.1f} points, wanted 0: {verdict}" in text
    side = "below" if lost > 0 else "above"
    wanted = f"{abs(lost):.1f} points {side} no privacy, wanted 5 below at most: {verdict}"
    assert f"at epsilon 8: {wanted}" in text
    assert "at 0.40 x its time, wanted 0.5 at most: met" in text
    assert (
        "| Dual-Priv | 8 | optim.learning_rate 0.1 | optim.learning_rate 0.1 (50.0); as params.yaml (40.0)"
        in text
    )
    assert "--quick" in text and "Ablations" not in text
    assert "A dash: not run without privacy by this grid (zeroth order)." in text
    assert "in brackets what each reached" in text and "nothing was tried" not in text


def test_what_was_not_tried_is_not_called_chosen() -> None:
    runs = [*runs_of("Dual-Priv", 8.0, 0.85), *runs_of("DP-SGD", 8.0, 0.84)]
    only = [Choice("Dual-Priv", 8.0, ({"optim": {"learning_rate": 0.1}},), (0.0,))]
    plain = replace(GRID, variants=replace(GRID.variants, list=()))
    text = page(plain, runs, COSTS, only, "today, here", Path("presets/compare.yaml"), quick=True)
    assert "nothing was tried, and nothing chosen" in text and "in brackets" not in text


def test_charts_are_drawn_of_all_methods() -> None:
    drawn = charts(RUNS, COSTS)
    assert set(drawn) == {"accuracy", "cost"}
    for chart in drawn.values():
        assert chart.startswith("<svg") and "Dual-Priv" in chart and "DP-SGD" in chart
    assert "random tokens" not in drawn["accuracy"]
