"""The command ``dualpriv show``: results and privacy statement, from stored evidence alone."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from stages.core.files import read_json
from stages.privacy.evidence import METRICS, STATEMENT
from stages.reporting.words import alarm, count, interval, is_noised, ordered_kinds


def show_command(*, as_json: bool = False) -> None:
    """Print the results table and the privacy sentence, or both files as one document.

    Missing evidence is a ValueError.
    """
    metrics, statement = read_json(Path(METRICS)), read_json(Path(STATEMENT))
    if as_json:
        print(json.dumps({"metrics": metrics, "statement": statement}, indent=2, sort_keys=True))
        return
    console = Console(highlight=False)
    console.print(_table(metrics))
    if warning := alarm(statement):
        console.print(Text(warning, style="bold red"), soft_wrap=True)
    console.print(Text(statement["sentence"]), soft_wrap=True)


def _table(metrics: dict[str, Any]) -> Table:
    noised = ", noised" if is_noised(metrics) else ""
    table = Table(title=f"Exact answers on held-out records, %{noised}", title_justify="left")
    table.add_column("kind of question")
    for name in ("zero-shot", "fine-tuned", "rows"):
        table.add_column(name, justify="right")
    for kind in ordered_kinds(metrics):
        before, after = metrics["zero_shot"][kind], metrics["tuned"][kind]
        if kind == "all":
            table.add_section()
        shown = [_percent(found, bool(noised)) for found in (before, after)]
        table.add_row(escape(kind), *shown, count(after["rows"]))
    return table


def _percent(found: dict[str, Any], with_interval: bool) -> str:
    if found["accuracy"] is None:
        return "-"
    return f"{100 * found['accuracy']:.1f}" + (f" ({interval(found)})" if with_interval else "")
