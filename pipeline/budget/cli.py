"""The options of ``dualpriv budget``; what it needs is imported when it is called."""

from pathlib import Path
from typing import Annotated

import typer


def budget(
    units: Annotated[
        int | None, typer.Option("--units", help="At most so many; left out: population.max_units.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option("--epsilon", help="Left out: privacy.epsilon.")] = None,
    delta: Annotated[float | None, typer.Option("--delta", help="Left out: privacy.delta.")] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", help="Expected batches: `a,b,c`, or `low:high`, doubling.")
    ] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="Numbers of steps, likewise.")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Weights that learn, likewise; left out: of params.yaml.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="One of presets/: its model and parameters.")
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", help="Most time that training may take.")] = None,
    gib: Annotated[float | None, typer.Option("--gib", help="Most memory that a step may take.")] = None,
    no_time: Annotated[bool, typer.Option("--no-time", help="Predict no time: it takes some steps.")] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="An SVG file to draw.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare batches and steps before anything is spent: noise, epsilon, time, memory, what is left.

    Spends nothing and reads no private record. Exit 0 with a recommendation, 1 if nothing can be run, 2 for a
    mistake. Example: `dualpriv budget --batch 250:2000 --steps 40,80 --epsilon 4 --picture budget.svg`
    """
    from pipeline.budget.command import budget_command
    from pipeline.budget.question import Asked

    asked = Asked(
        preset=preset,
        units=units,
        epsilon=epsilon,
        delta=delta,
        batch=batch,
        steps=steps,
        weights=weights,
        hours=hours,
        gib=gib,
        with_time=not no_time,
    )
    raise typer.Exit(budget_command(asked, picture, as_json=as_json))
