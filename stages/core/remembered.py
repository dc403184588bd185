"""What was found before, kept in ``scratch/`` for whoever asks the same again."""

from collections.abc import Callable
from typing import Any

from stages.core.canonical import canonical_digest
from stages.core.files import read_json, write_json
from stages.core.scratch import scratch_folder


def remembered(folder: str, decides: Any, find: Callable[[], Any]) -> Any:
    """Return ``find()``, or what it returned before for the same ``decides``: all that it hangs on.

    Kept in ``scratch/folder`` as JSON has it.
    """
    digest = canonical_digest(decides)[:32]
    file = scratch_folder(folder) / f"{digest}.json"
    if not file.exists():
        write_json(file, find())
    return read_json(file)
