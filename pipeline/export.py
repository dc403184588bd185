"""The command ``dualpriv export``: the fine-tuned model as a directory for people without this project."""

import shutil
from pathlib import Path

from pipeline.as_trained import require_as_trained
from pipeline.predict import ADAPTER, BACKBONE, PRUNING, require_model
from stages.core.files import new_directory, read_json, write_text
from stages.core.params import PARAMS, read_params, read_section

TRACE = Path("data/finetune/trace.json")
STATEMENT = Path("data/account/statement.json")
RELEASED = Path("models/release/README.md")


def export_command(to: Path) -> None:
    """Write the model of the current checkout, its card and its privacy statement to a new directory.

    Guarantee: ``to`` is there whole or not at all, the statement is that of this very adapter, and pruning,
    precision and backbone are those it was trained with (``require_as_trained``).
    """
    if to.exists() or to.is_symlink():
        raise ValueError(f"{to} exists already: name a new directory")
    require_model()
    try:
        _export(to)
    except OSError as error:
        raise ValueError(f"{to} cannot be written: {error.strerror or error}") from None
    print(f"{to} holds the fine-tuned model; {to}/README.md says how to load it, and what privacy was spent")


def _export(to: Path) -> None:
    from stages.exporting.card import card_of
    from stages.exporting.directory import require_accounted, write_model
    from stages.vlm.selection import TokenSelection
    from stages.vlm.source import Model

    params, pruning = read_params(), read_json(PRUNING)
    selection = read_section(params, "tokens", TokenSelection, PARAMS)
    precision = read_section(params, "model", Model, PARAMS).precision
    require_as_trained(params, PRUNING, BACKBONE)
    rule = selection.under(pruning["chosen"])
    statement = require_accounted(ADAPTER, TRACE, STATEMENT)
    with new_directory(to) as building:
        exported = write_model(BACKBONE, ADAPTER, building, precision)
        shutil.copyfile(STATEMENT, building / STATEMENT.name)
        card = card_of(exported, statement, rule, pruning["all"]["kept"], _released())
        write_text(building / "README.md", card)


def _released() -> str | None:
    """Return the card of the release directory, where it is there and of this statement."""
    statement = RELEASED.parent / STATEMENT.name
    if not RELEASED.is_file() or not statement.is_file():
        return None
    return RELEASED.read_text() if statement.read_bytes() == STATEMENT.read_bytes() else None
