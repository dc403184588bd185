"""The page of a comparison: what was run, what it reached, and which targets are met."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.compare.grid import Grid
from pipeline.compare.rehearsals import UNITS, Choice
from pipeline.compare.table import Cost, Run, cells, methods_table, variants_table
from pipeline.presets import leaves

_HOW_CHOSEN = (
    "Chosen for every method at every epsilon on the stand-in, public records in the place of private ones, "
    "from as many for each; in brackets what each reached on held-out rows of the stand-in, as the mean over "
    "{} starts."
)
_ONE_SETTING = "One for every method, the first that the grid names: nothing was tried, and nothing chosen."


def page(
    grid: Grid,
    runs: Sequence[Run],
    costs: Sequence[Cost],
    choices: Sequence[Choice],
    where: str,
    path: Path,
    *,
    quick: bool,
) -> str:
    """Return the page as Markdown."""
    command = f"dualpriv compare{' --quick' if quick else ''} --grid {path}"
    zero_shot = sorted({run.zero_shot for run in runs if run.group == "method"})
    shown = " or ".join(f"{100 * each:.1f}" for each in zero_shot)
    parts = [
        "# Methods under one accountant",
        f"`{command}`; {where}. {len(runs)} runs, every method from {len(grid.starts)} starts, delta "
        f"{runs[0].delta:g}, {runs[0].rows} held-out rows. Answered exactly, %: mean, and the range over "
        f"starts. Zero-shot, by what a method sees of an image: {shown}. A star: not above zero-shot by more "
        "than the sampling error of the held-out rows (half the 95 % interval of a run). Time of a look at "
        f"{UNITS} units with clipping and update, and bytes above the weights while it looks, as ratios to "
        f"{grid.reference} without privacy: medians and ranges of interleaved pairs.",
        methods_table(runs, costs) + _not_run(grid),
        "![accuracy over epsilon](accuracy.svg)\n\n![accuracy and costs](cost.svg)",
    ]
    if grid.variants.list:
        parts += [
            "## Ablations and controls",
            f"From {len(grid.variants.starts)} starts, the same for all rows: the first may differ from the "
            "table above.",
            variants_table(runs, costs, grid.variants.of, grid.variants.epsilon, grid.variants.starts),
        ]
    targets = _targets(runs, costs, grid)
    if targets:
        parts += ["## Targets", targets]
    parts += ["## Settings", _how_chosen(grid, choices), _settings(choices)]
    return "\n\n".join(parts) + "\n"


def _not_run(grid: Grid) -> str:
    left_out = [method.name for method in grid.methods if not method.without_noise]
    if not left_out or not any(method.without_noise for method in grid.methods):
        return ""
    return f"\n\nA dash: not run without privacy by this grid ({', '.join(left_out)})."


def _how_chosen(grid: Grid, choices: Sequence[Choice]) -> str:
    had_choice = any(len(choice.tried) > 1 for choice in choices)
    return _HOW_CHOSEN.format(len(grid.choose_starts)) if had_choice else _ONE_SETTING


def _settings(choices: Sequence[Choice]) -> str:
    lines = ["| method | epsilon | chosen | tried |", "|---|---|---|---|"]
    for choice in choices:
        epsilon = "none" if choice.epsilon is None else f"{choice.epsilon:g}"
        tried = "; ".join(
            f"{_words(settings)} ({100 * reached:.1f})" if len(choice.tried) > 1 else _words(settings)
            for settings, reached in zip(choice.tried, choice.accuracy, strict=True)
        )
        lines.append(f"| {choice.method} | {epsilon} | {_words(choice.best)} | {tried} |")
    return "\n".join(lines)


def _words(settings: dict[str, object]) -> str:
    return ", ".join(f"{'.'.join(keys)} {value}" for keys, value in leaves(settings)) or "as params.yaml"


def _targets(runs: Sequence[Run], costs: Sequence[Cost], grid: Grid) -> str:
    """Say whether Dual-Priv holds what it should beside DP-SGD and without privacy, where all were run."""
    mean = {(cell.name, cell.epsilon): cell.mean for cell in cells(runs) if cell.group == "method"}
    ratio = {cost.name: cost for cost in costs}
    ours, peer = grid.variants.of, grid.reference
    said = []
    if (ours, 8.0) in mean and (peer, 8.0) in mean:
        apart = 100 * (mean[ours, 8.0] - mean[peer, 8.0])
        said.append(
            _verdict(f"{ours} against {peer} at epsilon 8: {apart:+.1f} points, wanted 0", apart >= 0)
        )
        time, size = ratio[ours].time / ratio[peer].time, ratio[ours].bytes / ratio[peer].bytes
        said.append(_verdict(f"at {time:.2f} x its time, wanted 0.5 at most", time <= 0.5))
        said.append(_verdict(f"and {size:.2f} x its bytes, wanted 0.45 at most", size <= 0.45))
    for epsilon, most in ((8.0, 5.0), (3.0, 10.0)):
        if (ours, epsilon) in mean and (ours, None) in mean:
            lost = 100 * (mean[ours, None] - mean[ours, epsilon])
            told = f"{abs(lost):.1f} points {'below' if lost > 0 else 'above'} no privacy"
            text = f"{ours} at epsilon {epsilon:g}: {told}, wanted {most:g} below at most"
            said.append(_verdict(text, lost <= most))
    return "\n".join(said)


def _verdict(text: str, is_met: bool) -> str:
    return f"- {text}: {'met' if is_met else 'missed'}"
