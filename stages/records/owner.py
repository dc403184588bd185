"""Whose records a private set holds: a tag that only the ledger of that population can tell."""

from pathlib import Path

from stages.core.files import write_text
from stages.ledger.population_key import PopulationKey

OWNER = "owner"
"""The file of a set that holds the tag."""


def owner_of(key: PopulationKey) -> str:
    """Return the tag of the sets of the population whose key this is."""
    return key.digest("records of", b"").hex()


def write_owner(directory: Path, owner: str) -> None:
    """Mark a set that is being written."""
    write_text(directory / OWNER, owner + "\n")


def read_owner(directory: Path) -> str | None:
    """Return the tag of a set, or None."""
    file = directory / OWNER
    return file.read_text().strip() if file.exists() else None


def require_owned(directory: Path, key: PopulationKey, population: str) -> None:
    """Refuse a private set that was not made for ``population``: another one would be charged for its people.

    Files that DVC brings back from its cache are such sets when the population was renamed in between.
    """
    if read_owner(directory) != owner_of(key):
        raise ValueError(
            f"{directory} was not made for population '{population}', which would be charged for it: run "
            "`dvc repro ingest encode` under that name, or go back to the name it was made under"
        )
