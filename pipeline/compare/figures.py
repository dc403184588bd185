"""Charts of a comparison, as SVG files."""

from collections.abc import Sequence
from typing import Any

from pipeline.compare.table import Cost, Run, cells

NO_PRIVACY = "none"


def charts(runs: Sequence[Run], costs: Sequence[Cost]) -> dict[str, str]:
    """Return ``accuracy``, over epsilon, and ``cost``, over time and bytes, as SVG."""
    import altair as alt
    import vl_convert

    drawn = {"accuracy": _accuracy(alt, runs), "cost": _cost(alt, runs, costs)}
    return {name: str(vl_convert.vegalite_to_svg(chart.to_dict())) for name, chart in drawn.items()}


def _accuracy(alt: Any, runs: Sequence[Run]) -> Any:
    found = [cell for cell in cells(runs) if cell.group == "method"]
    epsilons = sorted({cell.epsilon for cell in found if cell.epsilon is not None})
    labels = [f"{epsilon:g}" for epsilon in epsilons]
    rows = [
        {
            "method": cell.name,
            "epsilon": NO_PRIVACY if cell.epsilon is None else f"{cell.epsilon:g}",
            "mean": 100 * cell.mean,
            "low": 100 * min(run.accuracy for run in cell.runs),
            "high": 100 * max(run.accuracy for run in cell.runs),
        }
        for cell in found
    ]
    zero_shot = [
        {"zero": 100 * each} for each in sorted({run.zero_shot for run in runs if run.group == "method"})
    ]
    x = alt.X("epsilon:N", sort=[*labels, NO_PRIVACY], title="epsilon", axis=alt.Axis(labelAngle=0))
    shared = {"x": x, "xOffset": "method:N", "color": alt.Color("method:N", title=None)}
    data = alt.Chart(alt.InlineData(rows))
    scale = alt.Scale(zero=False)
    points = data.mark_point(filled=True, size=60).encode(
        y=alt.Y("mean:Q", title="answered exactly, %", scale=scale), **shared
    )
    ranges = data.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q", **shared)
    line = alt.Chart(alt.InlineData(zero_shot)).mark_rule(strokeDash=[4, 4]).encode(y="zero:Q")
    return (ranges + points + line).properties(
        width=520, height=300, title="Mean and range over starts; dashed: zero-shot"
    )


def _cost(alt: Any, runs: Sequence[Run], costs: Sequence[Cost]) -> Any:
    own = [cell for cell in cells(runs) if cell.group == "method"]
    highest = max((run.epsilon for run in runs if run.epsilon is not None), default=None)
    mean = {cell.name: 100 * cell.mean for cell in own if cell.epsilon == highest}
    rows = [
        {"method": cost.name, "cost": what, "ratio": ratio, "accuracy": mean[cost.name]}
        for cost in costs
        if cost.name in mean
        for what, ratio in (("time", cost.time), ("bytes", cost.bytes))
    ]
    points = (
        alt.Chart(alt.InlineData(rows))
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X("ratio:Q", title="a step, to one of the reference without privacy"),
            y=alt.Y("accuracy:Q", title="answered exactly, %", scale=alt.Scale(zero=False)),
            color=alt.Color("method:N", title=None),
            column=alt.Column("cost:N", title=None, sort=["time", "bytes"]),
        )
    )
    at = "" if highest is None else f" at epsilon {highest:g}"
    return points.properties(width=260, height=260, title=f"Accuracy{at} and what a step costs")
