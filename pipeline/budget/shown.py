"""A budget on the terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.too_small import percent, rows_beyond, what_is_noised

_WIDTH = 132
"""Columns of the table where it goes to a file."""


def show(found: dict[str, Any], rows_per_unit: int) -> None:
    """Print a budget: what was asked, a row an option, and what is recommended; warnings came before."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)

    def say(sentence: str) -> None:
        console.print(Text(sentence), soft_wrap=True)

    population, target = found["population"], found["target"]
    say(
        f"Population {population['name']}, at most {population['max_units']} units ({population['unit']}), "
        f"of which about {found['trained_units']:g} are trained on; epsilon {target['epsilon']:g} at delta "
        f"{target['delta']:g} ({target['relation']}), {found['estimator']}."
    )
    say(
        f"At this epsilon a guess whether one {population['unit']} was in can be right in "
        f"{percent(found['guess_bound'])} of cases at most, where half would be chance."
    )
    for weights in found["weights"]:
        console.print(_table(found, weights))
    for charge in found["beside"]:
        say(f"Counted beside training: {charge['stage']} on {charge['split']} units.")
    say(f"Ledger: {found['ledger']['says']}.")
    for sentence in found["predicted"].values():
        say(f"{_sentence(sentence)}.")
    say(f"Ask yourself: {rows_beyond(rows_per_unit, None)}.")
    _recommend(found, say)
    say(f"{_sentence(found['spends'])}.")


def _recommend(found: dict[str, Any], say: Any) -> None:
    chosen = found["recommended"]
    if chosen is not None:
        say(
            f"Recommended: batch {chosen['expected_batch']:g} in {chosen['steps']} steps. In params.yaml: "
            f"sampling.steps: {chosen['steps']}, sampling.rate: {chosen['rate']:g}, "
            f"sampling.expected_batch: {chosen['expected_batch']:.1f}."
        )
    for reason in found["reasons"]:
        say(f"- {reason}")


def _table(found: dict[str, Any], weights: int) -> Table:
    table = Table(title=f"Noise on {what_is_noised(weights, found['slopes'])}", title_justify="left")
    table.add_column("")
    for name in (
        "batch",
        "steps",
        "rate",
        "noise multiplier",
        "noise/signal: step",
        "run",
        "epsilon after 1/4, 1/2, 3/4, all",
    ):
        table.add_column(name, justify="right")
    for name in ("time", "GiB", "ledger"):
        table.add_column(name, justify="right")
    for option in found["options"]:
        ratio = next(each for each in option["noise_to_signal"] if each["weights"] == weights)
        quarters = [_after(option, part) for part in (1, 2, 3, 4)]
        table.add_row(
            "->" if _is_chosen(option, found["recommended"]) else "",
            str(option["batch"]),
            str(option["steps"]),
            f"{option['rate']:g}",
            f"{option['noise_multiplier']:.3f}",
            f"{ratio['step']:.3g}",
            f"{ratio['run']:.3g}",
            " ".join(f"{epsilon:.2f}" for epsilon in quarters),
            "-" if option["seconds"] is None else duration(option["seconds"]),
            "-" if option["peak_gib"] is None else f"{option['peak_gib']:.3g}",
            _passes(option["ledger"]),
        )
    return table


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _after(option: dict[str, Any], quarters: int) -> float:
    """Return epsilon at the last told step within so many quarters of the steps, or at the first."""
    end = max(1, round(option["steps"] * quarters / 4))
    return float(max(each["epsilon"] for each in option["epsilon_by_step"] if each["steps"] <= end))


def _is_chosen(option: dict[str, Any], chosen: dict[str, Any] | None) -> bool:
    return chosen is not None and (option["batch"], option["steps"]) == (
        chosen["expected_batch"],
        chosen["steps"],
    )


def _passes(ledger: dict[str, Any]) -> str:
    if ledger["passes"] is None:
        return "any"
    return f"{ledger['passes']}x" if ledger["passes"] else "refused"


def duration(seconds: float) -> str:
    """Return a time in two of its units.

    >>> duration(12.3), duration(200), duration(7260), duration(200_000)
    ('12 s', '3 min 20 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for size, name, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {small}"
    return f"{whole} s" if whole else "< 1 s"
