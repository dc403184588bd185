"""Charts as inline SVG: no script, no network, the page's own colours in light and dark."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from stages.reporting.arithmetic import chance_of_right_choice, noise_energy_kept
from stages.reporting.words import ordered_kinds

FIRST, SECOND, INK, MUTED = "var(--first)", "var(--second)", "var(--ink)", "var(--muted)"
ACCUMULATED_STEPS = 50
_CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domainColor": MUTED,
        "tickColor": MUTED,
        "titlePadding": 8,
    },
    "legend": {"labelColor": INK, "labelFontSize": 12, "orient": "top", "title": None},
}


def svg(chart: Any, *, width: int = 430, height: int = 210) -> Markup:
    """Return a chart as an SVG element; equal charts give equal text, and Vega escapes every label."""
    drawn = chart.properties(width=width, height=height).to_dict() | {"config": _CONFIG}
    return Markup(vl_convert.vegalite_to_svg(drawn))


def accuracy(metrics: Mapping[str, Any]) -> Markup:
    """Draw accuracy and interval, by kind, before and after tuning."""
    rows = [
        {"kind": kind, "model": model, **{key: 100 * found[key] for key in ("accuracy", "low", "high")}}
        for model, part in (("zero-shot", "zero_shot"), ("fine-tuned", "tuned"))
        for kind, found in metrics[part].items()
        if found["accuracy"] is not None
    ]
    names = ["zero-shot", "fine-tuned"]
    shared: dict[str, Any] = {
        "y": alt.Y("kind:N", title=None, sort=ordered_kinds(metrics)),
        "yOffset": alt.YOffset("model:N", sort=names),
        "color": alt.Color("model:N", scale=alt.Scale(domain=names, range=[SECOND, FIRST])),
    }
    data = alt.Chart(alt.InlineData(rows))
    whole = alt.Scale(domain=[0, 100])
    interval = data.mark_rule(strokeWidth=3, opacity=0.55).encode(
        x=alt.X("low:Q", title="answered exactly, %", scale=whole), x2="high:Q", **shared
    )
    point = data.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("accuracy:Q", scale=whole), **shared
    )
    return svg(interval + point, width=430, height=50 * len(ordered_kinds(metrics)) + 10)


def epsilon(curve: Sequence[Mapping[str, float]], target: float) -> Markup:
    """Draw what the plan spends as steps pass, under its target."""
    points = alt.OverlayMarkDef(color=FIRST, size=40)
    line = alt.Chart(alt.InlineData(list(curve))).mark_line(point=points, color=FIRST)
    limit = alt.Chart(alt.InlineData([{"target": target}])).mark_rule(color=SECOND, strokeDash=[5, 4])
    spent = line.encode(
        x=alt.X("steps:Q", title="steps", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=alt.Y("epsilon:Q", title="epsilon spent", scale=alt.Scale(zero=True)),
    )
    return svg(spent + limit.encode(y="target:Q"))


def importance(layers: Sequence[Mapping[str, Any]], chosen: int) -> Markup:
    """Draw how likely the right answers stay when each encoder layer scores the patches."""
    rows = [{**layer, "is_chosen": layer["layer"] == chosen} for layer in layers]
    base = alt.Chart(alt.InlineData(rows)).encode(
        x=alt.X("layer:O", title="encoder layer that scores the patches", axis=alt.Axis(labelAngle=0)),
        y=alt.Y(
            "log_likelihood:Q", title="log-likelihood of answers", scale=alt.Scale(zero=False, padding=12)
        ),
    )
    return svg(base.mark_line(color=MUTED, strokeWidth=1) + _chosen_points(base))


def fidelity(pruning: Mapping[str, Any]) -> Markup:
    """Draw the part of the all-token accuracy that each token budget keeps."""
    chosen = pruning["chosen"]
    rows = [
        {
            "kept": found["kept"],
            "fidelity": 100 * found["fidelity"],
            "is_chosen": all(found[key] == chosen[key] for key in ("dominant", "contextual")),
        }
        for found in pruning["candidates"]
    ]
    if pruning["all"]["kept"] is not None:
        rows.append({"kept": pruning["all"]["kept"], "fidelity": 100.0, "is_chosen": False})
    base = alt.Chart(alt.InlineData(rows)).encode(
        x=alt.X("kept:Q", title="visual tokens kept", axis=alt.Axis(grid=False)),
        y=alt.Y("fidelity:Q", title="accuracy kept, %", scale=alt.Scale(zero=False, padding=12)),
    )
    return svg(base.mark_line(color=MUTED, strokeWidth=1) + _chosen_points(base))


def _chosen_points(base: Any) -> Any:
    is_chosen = alt.datum.is_chosen
    return base.mark_point(filled=True, opacity=1).encode(
        color=alt.condition(is_chosen, alt.value(FIRST), alt.value(MUTED)),
        size=alt.condition(is_chosen, alt.value(130), alt.value(45)),
    )


def noise_kept(block: int, keep: float) -> Markup:
    """Draw how much noise energy stays when pure noise is pruned to its strongest weights, or blocks."""
    rules = {"single weights (magnitude)": 1, f"blocks of {block} weights": block}
    rows = [
        {"kept": part, "rule": rule, "energy": 100 * noise_energy_kept(part / 100, size)}
        for rule, size in rules.items()
        for part in range(5, 100, 5)
    ] + [{"kept": 100, "rule": rule, "energy": 100.0} for rule in rules]
    color = alt.Color("rule:N", scale=alt.Scale(domain=list(rules), range=[SECOND, FIRST]))
    lines = (
        alt.Chart(alt.InlineData(rows))
        .mark_line()
        .encode(
            x=alt.X("kept:Q", title="kept of the update, %", axis=alt.Axis(grid=False)),
            y=alt.Y("energy:Q", title="noise energy left, %"),
            color=color,
        )
    )
    here = alt.Chart(alt.InlineData([{"kept": 100 * keep}])).mark_rule(color=MUTED, strokeDash=[5, 4])
    return svg(lines + here.encode(x="kept:Q"))


def right_choice(block: int, largest: float | None) -> Markup:
    """Draw how often the right one of two blocks is chosen, from one noisy step and from many."""
    series = {"one step": 1, f"summed over {ACCUMULATED_STEPS} steps": ACCUMULATED_STEPS}
    ratios = [10 ** (power / 10) for power in range(-30, 3)]
    rows = [
        {"ratio": ratio, "scores": name, "chance": 100 * chance_of_right_choice(ratio, block, steps)}
        for name, steps in series.items()
        for ratio in ratios
    ]
    color = alt.Color("scores:N", scale=alt.Scale(domain=list(series), range=[SECOND, FIRST]))
    domain = [ratios[0], ratios[-1]]
    scale, axis = alt.Scale(type="log", domain=domain), alt.Axis(grid=False, format="~g", tickCount=4)
    lines = (
        alt.Chart(alt.InlineData(rows))
        .mark_line()
        .encode(
            x=alt.X("ratio:Q", title="signal / noise of a weight", scale=scale, axis=axis),
            y=alt.Y("chance:Q", title="right choice, %", scale=alt.Scale(domain=[40, 100])),
            color=color,
        )
    )
    if largest is None or not domain[0] <= largest <= domain[1]:
        return svg(lines)
    most = alt.Chart(alt.InlineData([{"ratio": largest}])).mark_rule(color=MUTED, strokeDash=[5, 4])
    return svg(lines + most.encode(x=alt.X("ratio:Q", scale=scale)))
