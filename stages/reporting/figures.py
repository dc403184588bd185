"""Charts of one run: accuracy, epsilon over the steps, layers, token budgets and what a step costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from stages.reporting.pages.drawing import FIRST, MUTED, SERIES, Chart, drawn
from stages.reporting.words import all_of, interval, ordered_kinds, percent

MIB = 1024**2


def accuracy(metrics: Mapping[str, Any], nonprivate: Mapping[str, Any] | None = None) -> Chart:
    """Draw accuracy and interval, by kind, before and after tuning, and after tuning without privacy."""
    parts = {"zero-shot": metrics["zero_shot"], "fine-tuned": metrics["tuned"]}
    if nonprivate is not None:
        parts["without privacy"] = nonprivate["tuned"]
    rows = [
        {"kind": kind, "model": model, **{key: 100 * found[key] for key in ("accuracy", "low", "high")}}
        for model, part in parts.items()
        for kind, found in part.items()
        if found["accuracy"] is not None
    ]
    names, kinds = list(parts), ordered_kinds(metrics)
    colors = [SERIES[1], FIRST, SERIES[2]]
    shared: dict[str, Any] = {
        "y": alt.Y("kind:N", title=None, sort=kinds),
        "yOffset": alt.YOffset("model:N", sort=names),
        "color": alt.Color("model:N", scale=alt.Scale(domain=names, range=colors[: len(names)])),
    }
    data = alt.Chart(alt.InlineData(rows))
    near = alt.Scale(zero=False, padding=12)
    bars = data.mark_rule(strokeWidth=3, opacity=0.55).encode(
        x=alt.X("low:Q", title="answered exactly, %", scale=near, axis=alt.Axis(tickCount=6)),
        x2="high:Q",
        **shared,
    )
    points = data.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("accuracy:Q", scale=near), **shared
    )
    before, after = metrics["zero_shot"]["all"], metrics["tuned"]["all"]
    reference = f", {percent(nonprivate['tuned']['all']['accuracy'])} without privacy" if nonprivate else ""
    table = [
        (f"{kind}, {model}", percent(found["accuracy"]), f"{interval(found)} %")
        for kind in kinds
        for model, part in parts.items()
        for found in (part[kind],)
    ]
    return drawn(
        bars + points,
        f"Accuracy with 95 % intervals by kind of question, before and after tuning. Of all questions, "
        f"{percent(before['accuracy'])} before and {percent(after['accuracy'])} after{reference}.",
        ("kind of question, model", "accuracy", "95 % interval"),
        table,
        height=25 * len(names) * len(kinds) + 10,
    )


def epsilon(curve: Sequence[Mapping[str, float]], target: float) -> Chart:
    """Draw what the plan spends as steps pass, under its target."""
    points = alt.OverlayMarkDef(color=FIRST, size=40)
    line = alt.Chart(alt.InlineData(list(curve))).mark_line(point=points, color=FIRST)
    limit = alt.Chart(alt.InlineData([{"target": target}])).mark_rule(color=SERIES[1], strokeDash=[5, 4])
    spent = line.encode(
        x=alt.X("steps:Q", title="steps", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=alt.Y("epsilon:Q", title="epsilon spent", scale=alt.Scale(zero=True)),
    )
    first, last = curve[0], curve[-1]
    return drawn(
        spent + limit.encode(y="target:Q"),
        f"Epsilon over the steps: {first['epsilon']:.3f} after step {first['steps']}, "
        f"{last['epsilon']:.3f} after all {last['steps']}, of a target of {target:g}.",
        ("steps", "epsilon spent"),
        [(f"{point['steps']}", f"{point['epsilon']:.4f}") for point in curve],
    )


_MEASURES = {
    "log_likelihood": ("log-likelihood", "{:.4f}"),
    "accuracy": ("accuracy", "{:.3f}"),
    "drop": ("lost without the rest", "{:.4f}"),
    "concentration": ("concentration", "{:.3f}"),
    "stability": ("stability", "{:.3f}"),
}
"""What is known of a layer: its name in a table, and how its value is written."""


def importance(layers: Sequence[Mapping[str, Any]], chosen: int) -> Chart:
    """Draw how likely the right answers stay when each encoder layer scores the patches."""
    rows = [{**layer, "is_chosen": layer["layer"] == chosen} for layer in layers]
    base = alt.Chart(alt.InlineData(rows)).encode(
        x=alt.X("layer:O", title="encoder layer that scores the patches", axis=alt.Axis(labelAngle=0)),
        y=alt.Y(
            "log_likelihood:Q", title="log-likelihood of answers", scale=alt.Scale(zero=False, padding=12)
        ),
    )
    known = {key: words for key, words in _MEASURES.items() if key in layers[0]}
    return drawn(
        base.mark_line(color=MUTED, strokeWidth=1) + _chosen_points(base),
        f"How likely right answers stay when each of {len(layers)} encoder layers scores the patches; layer "
        f"{chosen} was chosen.",
        ("layer", *(name for name, _ in known.values())),
        [
            (str(layer["layer"]), *(form.format(layer[key]) for key, (_, form) in known.items()))
            for layer in layers
        ],
    )


def frontier(pruning: Mapping[str, Any]) -> Chart:
    """Draw the part of the all-token accuracy that each rule keeps under each token budget."""
    rows = [
        {
            "rule": _rule(found),
            "budget": _budget(found),
            "kept": found["kept"],
            "fidelity": 100 * found["fidelity"],
            "is_chosen": number < len(pruning["candidates"]) and _is_chosen(found, pruning),
        }
        for number, found in enumerate([*pruning["candidates"], *pruning.get("beside", [])])
    ]
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    colours = [SERIES[number % len(SERIES)] for number in range(len(rules))]
    is_chosen = alt.datum.is_chosen
    base = alt.Chart(alt.InlineData(rows[::-1])).encode(  # the chosen point is drawn last, above the others
        x=alt.X("kept:Q", title="visual tokens kept", scale=alt.Scale(zero=False), axis=alt.Axis(grid=False)),
        y=alt.Y("fidelity:Q", title="accuracy kept, %", scale=alt.Scale(zero=False, padding=12)),
        color=alt.Color("rule:N", scale=alt.Scale(domain=rules, range=colours), sort=rules),
    )
    points = base.mark_point(filled=True, opacity=1).encode(
        size=alt.condition(is_chosen, alt.value(170), alt.value(40)),
        shape=alt.Shape("rule:N", scale=alt.Scale(domain=rules), sort=rules),
    )
    return drawn(
        base.mark_line(strokeWidth=1.5, opacity=0.7) + points,
        f"Accuracy kept, relative to {all_of(pruning['all']['kept'])} visual tokens, by rule and number of "
        "tokens kept.",
        ("rule and budget", "tokens kept", "accuracy kept"),
        [
            (
                f"{row['rule']} {row['budget']}{', chosen' if row['is_chosen'] else ''}",
                _number(row["kept"]),
                f"{row['fidelity']:.1f} %",
            )
            for row in rows
        ],
        height=260,
    )


def cost(pruning: Mapping[str, Any]) -> Chart | None:
    """Draw the bytes of a step by token budget; None where they were not counted, as on private records."""
    everything = {**pruning["all"], "step": 1.0}
    counted = [found for found in [*pruning["candidates"], everything] if "bytes" in found]
    if len(counted) < 2:
        return None
    rows = [
        {
            "budget": "all tokens" if found is everything else f"{_number(found['kept'])} tokens",
            "mib": found["bytes"] / MIB,
            "step": found["step"],
            "is_chosen": found is not everything and _is_chosen(found, pruning),
        }
        for found in counted
    ]
    order = [row["budget"] for row in rows]
    bars = (
        alt.Chart(alt.InlineData(rows))
        .mark_bar(size=18)
        .encode(
            x=alt.X("mib:Q", title="MiB alive at once, above the weights", axis=alt.Axis(grid=False)),
            y=alt.Y("budget:N", title=None, sort=order),
            color=alt.condition(alt.datum.is_chosen, alt.value(FIRST), alt.value(MUTED)),
            opacity=alt.condition(alt.datum.is_chosen, alt.value(1), alt.value(0.55)),
        )
    )
    return drawn(
        bars,
        f"Bytes of a training step by visual tokens kept: {rows[0]['mib']:.1f} MiB with {rows[0]['budget']}, "
        f"{rows[-1]['mib']:.1f} MiB with all.",
        ("visual tokens", "MiB of a step", "arithmetic of a row"),
        [
            (
                f"{row['budget']}{', chosen' if row['is_chosen'] else ''}",
                f"{row['mib']:.1f}",
                percent(row["step"]),
            )
            for row in rows
        ],
        height=34 * len(rows),
    )


def chosen_budget(pruning: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is known of the budget that was chosen."""
    return next(found for found in pruning["candidates"] if _is_chosen(found, pruning))


def _is_chosen(found: Mapping[str, Any], pruning: Mapping[str, Any]) -> bool:
    return all(found[key] == pruning["chosen"][key] for key in ("dominant", "contextual"))


def _rule(found: Mapping[str, Any]) -> str:
    """Return a rule in words; a file of only one rule may not name it."""
    select = str(found.get("select", "as chosen")).replace("_", " + ")
    merge = str(found.get("merge", "none")).replace("_", " ")
    return select if merge in ("none", "cluster") else f"{select}, {merge}"


def _budget(found: Mapping[str, Any]) -> str:
    return f"{found['dominant']} + {found['contextual']}"


def _number(kept: float | None) -> str:
    return "not known" if kept is None else f"{kept:g}"


def _chosen_points(base: Any) -> Any:
    is_chosen = alt.datum.is_chosen
    return base.mark_point(filled=True, opacity=1).encode(
        color=alt.condition(is_chosen, alt.value(FIRST), alt.value(MUTED)),
        size=alt.condition(is_chosen, alt.value(130), alt.value(45)),
    )
