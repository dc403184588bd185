"""Charts of arithmetic on noise: what pruning a noisy update leaves of it, and how often it chooses right."""

import altair as alt

from stages.reporting.arithmetic import chance_of_right_choice, noise_energy_kept
from stages.reporting.pages.drawing import FIRST, MUTED, SERIES, Chart, drawn

ACCUMULATED_STEPS = 50
_DASHED = [5, 4]


def noise_kept(block: int, keep: float) -> Chart:
    """Draw how much noise energy stays when pure noise is pruned to its strongest weights, or blocks."""
    rules = {"single weights (magnitude)": 1, f"blocks of {block} weights": block}
    shares = range(5, 100, 5)
    rows = [
        {"kept": part, "rule": rule, "energy": 100 * noise_energy_kept(part / 100, size)}
        for rule, size in rules.items()
        for part in shares
    ] + [{"kept": 100, "rule": rule, "energy": 100.0} for rule in rules]
    color = alt.Color("rule:N", scale=alt.Scale(domain=list(rules), range=[SERIES[1], FIRST]))
    lines = (
        alt.Chart(alt.InlineData(rows))
        .mark_line()
        .encode(
            x=alt.X("kept:Q", title="kept of the update, %", axis=alt.Axis(grid=False)),
            y=alt.Y("energy:Q", title="noise energy left, %"),
            color=color,
        )
    )
    here = alt.Chart(alt.InlineData([{"kept": 100 * keep}])).mark_rule(color=MUTED, strokeDash=_DASHED)
    return drawn(
        lines + here.encode(x="kept:Q"),
        f"Noise energy left by the share kept of an update: single weights keep "
        f"{100 * noise_energy_kept(0.8, 1):.1f} % of it at 80 %, blocks of {block} "
        f"{100 * noise_energy_kept(0.8, block):.1f} %.",
        ("kept", *rules),
        [
            (
                f"{part} %",
                *(f"{100 * noise_energy_kept(part / 100, size):.1f} %" for size in rules.values()),
            )
            for part in shares[1::2]
        ],
    )


def right_choice(block: int, largest: float | None) -> Chart:
    """Draw how often the right one of two blocks is chosen, from one noisy step and from many."""
    series = {"one step": 1, f"summed over {ACCUMULATED_STEPS} steps": ACCUMULATED_STEPS}
    ratios = [10 ** (power / 10) for power in range(-30, 3)]
    chances = {
        ratio: tuple(100 * chance_of_right_choice(ratio, block, steps) for steps in series.values())
        for ratio in ratios
    }
    rows = [
        {"ratio": ratio, "scores": name, "chance": chance}
        for ratio, found in chances.items()
        for name, chance in zip(series, found, strict=True)
    ]
    color = alt.Color("scores:N", scale=alt.Scale(domain=list(series), range=[SERIES[1], FIRST]))
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
    if largest is not None and domain[0] <= largest <= domain[1]:
        most = alt.Chart(alt.InlineData([{"ratio": largest}])).mark_rule(color=MUTED, strokeDash=_DASHED)
        lines = lines + most.encode(x=alt.X("ratio:Q", scale=scale))
    return drawn(
        lines,
        f"How often the right one of two blocks of {block} weights is chosen, by signal over noise: a coin "
        "toss at little signal, certain at much, and earlier where many steps are summed.",
        ("signal / noise", *series),
        [(f"{ratio:.3g}", *(f"{chance:.1f} %" for chance in chances[ratio])) for ratio in ratios[::5]],
    )
