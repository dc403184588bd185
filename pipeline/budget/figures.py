"""A budget as a picture, in SVG."""

from collections.abc import Sequence
from typing import Any

from pipeline.budget.options import Option
from pipeline.too_small import what_is_noised


def picture(options: Sequence[Option], chosen: Option | None, weights: int, target: float) -> str:
    """Return noise over signal of every option, and epsilon over the steps of one, side by side as SVG.

    Its text alternative is the description that a screen reader finds.
    """
    import altair as alt
    import vl_convert

    shown = chosen or min(options, key=lambda option: option.of_the_run(weights))
    drawn = alt.hconcat(_noise(alt, options, chosen, weights), _epsilon(alt, shown, target))
    text = (
        f"Noise over signal of the whole run for {len(options)} options, and epsilon over the steps of batch "
        f"{shown.batch} in {shown.steps} steps, which ends at {shown.plan.epsilon:.3g} of {target:g}."
    )
    return str(vl_convert.vegalite_to_svg(drawn.properties(description=text).to_dict()))


def _noise(alt: Any, options: Sequence[Option], chosen: Option | None, weights: int) -> Any:
    rows = [
        {
            "batch": str(option.batch),
            "steps": option.steps,
            "ratio": option.of_the_run(weights),
            "is_chosen": option is chosen,
        }
        for option in options
    ]
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    base = alt.Chart(alt.InlineData(rows)).encode(
        x=alt.X("steps:Q", title="steps", scale=alt.Scale(type="log", nice=False, padding=15)),
        y=alt.Y(
            "ratio:Q", title="noise over largest signal, whole run", scale=alt.Scale(type="log", padding=15)
        ),
        color=alt.Color("batch:N", title="expected batch", sort=batches, legend=alt.Legend(orient="top")),
    )
    points = base.mark_point(filled=True, size=60)
    ring = base.mark_point(size=260, strokeWidth=2, color="black").transform_filter(alt.datum.is_chosen)
    directions = options[0].plan.directions
    noised = what_is_noised(weights, None if directions is None else directions.count)
    title = f"Noise on {noised}; ringed: recommended"
    return (base.mark_line(strokeWidth=1) + points + ring).properties(width=360, height=260, title=title)


def _epsilon(alt: Any, option: Option, target: float) -> Any:
    line = alt.Chart(alt.InlineData(list(option.spent))).mark_line(point=True)
    spent = line.encode(
        x=alt.X("steps:Q", title="steps", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=alt.Y("epsilon:Q", title="epsilon spent", scale=alt.Scale(zero=True)),
    )
    limit = alt.Chart(alt.InlineData([{"target": target}])).mark_rule(strokeDash=[5, 4])
    title = f"Batch {option.batch}, {option.steps} steps; dashed: the target"
    return (spent + limit.encode(y="target:Q")).properties(width=360, height=260, title=title)
