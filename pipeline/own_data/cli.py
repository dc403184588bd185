"""What ``dualpriv init`` takes; what it does is in command.py, imported when it is called."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def init(
    data: Annotated[Path, typer.Option("--data", help="Your records: the file of rows, or its folder.")],
    model: Annotated[str, typer.Option("--model", help="A Hugging Face directory, or a hub id.")],
    unit: Annotated[str, typer.Option("--unit", help="The field that names whose record it is.")],
    rows: Annotated[str | None, typer.Option("--rows", help="The file of rows inside the folder.")] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Of a hub id: the 40-hex commit.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="The field that names the kind of question.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="The field that says train or heldout; else a keyed hash.")
    ] = None,
    on_bad_record: Annotated[
        Literal["stop", "skip"], typer.Option("--on-bad-record", help="What becomes of one that is unusable.")
    ] = "stop",
    public: Annotated[
        Path | None, typer.Option("--public", help="Records that everybody may see, to choose settings on.")
    ] = None,
    public_unit: Annotated[
        str | None, typer.Option("--public-unit", help="Their unit's field; left out: that of --unit.")
    ] = None,
    population: Annotated[
        str | None, typer.Option("--population", help="The name that budgets belong to.")
    ] = None,
    unit_in_words: Annotated[
        str | None, typer.Option("--unit-in-words", help="What one unit is, such as 'patient'.")
    ] = None,
    max_units: Annotated[
        int | None, typer.Option("--max-units", help="A public bound on their number, for years to come.")
    ] = None,
    units_about: Annotated[
        int | None, typer.Option("--units-about", help="About how many there are; may be public.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option("--epsilon", help="Of this training.")] = None,
    delta: Annotated[float | None, typer.Option("--delta", help="Far below 1 / max_units.")] = None,
    limit: Annotated[
        float | None, typer.Option("--limit", help="Epsilon of all releases on them together.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show all, and change nothing.")] = False,
) -> None:
    """Look at your records and model, ask what only you can decide, and write params.yaml.

    What is counted is told on this terminal and written nowhere.
    """
    from pipeline.own_data.command import Asked, init_command
    from pipeline.own_data.declared import Said

    said = Said(
        population=population,
        unit_in_words=unit_in_words,
        max_units=max_units,
        about=units_about,
        epsilon=epsilon,
        delta=delta,
        limit=limit,
    )
    init_command(
        Asked(
            data=data.expanduser(),
            rows=rows,
            model=model,
            revision=revision,
            unit=unit,
            kind=kind,
            split=split,
            on_bad_record=on_bad_record,
            public=None if public is None else public.expanduser(),
            public_unit=public_unit,
            said=said,
            dry_run=dry_run,
        )
    )
