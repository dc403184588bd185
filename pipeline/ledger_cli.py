"""The commands ``dualpriv ledger ...``; their modules are imported when they are called."""

from pathlib import Path
from typing import Annotated

import typer

ledger = typer.Typer(help="What every population spent, holds reserved, and has left.", add_completion=False)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Html = Annotated[
    Path | None, typer.Option("--html", help="Write one HTML page to this file, which needs no network.")
]


@ledger.callback(invoke_without_command=True)
def ledger_alone(context: typer.Context, as_json: AsJson = False, html: Html = None) -> None:
    """What every population spent, holds reserved, and has left: `dualpriv ledger` shows it."""
    if context.invoked_subcommand is None:
        ledger_show(as_json, html)


@ledger.command("show", epilog="Example: dualpriv ledger show --json")
def ledger_show(as_json: AsJson = False, html: Html = None) -> None:
    """Print the account of every population, and its releases."""
    from pipeline.ledger import show_command

    if as_json and html is not None:
        raise ValueError("--json prints and --html writes a file: ask for one of them")
    show_command(as_json=as_json, html=html)


@ledger.command("export", epilog="Example: dualpriv ledger export")
def ledger_export(
    population: Annotated[
        str | None, typer.Option("--population", help="Its name; left out: the one of params.yaml.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="A file; left out: below data/ledger.")] = None,
) -> None:
    """Write the whole chain of a population, as evidence that Git keeps."""
    from pipeline.ledger import export_command

    export_command(population, to)


@ledger.command("abandon", epilog="Example: dualpriv ledger abandon RELEASE --reason 'the machine is gone'")
def ledger_abandon(
    release: Annotated[str, typer.Argument(help="The 32 hex digits that name the release.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the ledger.")] = "given up by its owner",
) -> None:
    """Charge a release that never ended for what it began, and give back the rest of its reservation."""
    from pipeline.ledger import abandon_command

    abandon_command(release, reason)
