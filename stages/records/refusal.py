"""Say why records cannot be used: one sentence, with their ids and the way out, and none of their text."""

from collections.abc import Sequence
from pathlib import Path

SHOWN = 5
LONGEST = 80


class Unusable(ValueError):
    """Why one record cannot be used, and the way out; whoever reads the file adds the record's id."""

    def __init__(self, reason: str, way_out: str) -> None:
        """Take a reason without its record, and what the user can do."""
        super().__init__(f"{reason} ({way_out})")


def quote(value: object) -> str:
    r"""Return a short quotation of a value, on one line and printable.

    >>> quote("a\nb")
    "'a\\nb'"
    """
    text = ascii(value)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def first_sentence(error: BaseException) -> str:
    """Return what a library said, without its line breaks, its further sentences and its full stop."""
    said = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
    return said[:LONGEST] or type(error).__name__


def refuse_records(path: Path, problems: Sequence[str]) -> None:
    """Raise a ValueError that names the first ``SHOWN`` bad records; no problems is no error.

    The number of good records is not told: it is a fact about private data.
    """
    if not problems:
        return
    shown = list(problems[:SHOWN])
    if len(problems) > SHOWN:
        shown.append(f"and {len(problems) - SHOWN} more")
    count = "1 record" if len(problems) == 1 else f"{len(problems)} records"
    raise ValueError(f"{path}: {count} cannot be used: {'; '.join(shown)}")
