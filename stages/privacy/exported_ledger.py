"""The ledger of a population as it is exported into the evidence, read by the rules of its writer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.privacy.chain import Entry, entry_from_json
from stages.privacy.history import History, history_of

VERSION = 1


@dataclass(frozen=True)
class ExportedLedger:
    """A chain of which every entry has been checked."""

    population: str
    entries: tuple[Entry, ...]
    history: History


def read_ledger(value: Mapping[str, Any]) -> ExportedLedger:
    """Return the ledger that a JSON value holds; a ValueError says which entry breaks which rule.

    Guarantee: every digest is that of its entry, entries follow one another from the first, and
    ``history.extended`` would have admitted each.
    """
    if value.keys() != {"version", "population", "entries"}:
        raise ValueError(f"has keys {sorted(value)!a}, not those of an exported ledger")
    if value["version"] != VERSION or isinstance(value["version"], bool):
        raise ValueError(f"has version {value['version']!a}; this dualpriv reads {VERSION}")
    population, listed = value["population"], value["entries"]
    if not isinstance(population, str) or not isinstance(listed, list):
        raise ValueError("names no population, or lists no entries")
    try:
        entries = tuple(entry_from_json(item, f"entry {number}") for number, item in enumerate(listed, 1))
        return ExportedLedger(population, entries, history_of(population, entries))
    except (KeyError, TypeError) as error:
        raise ValueError(f"is broken: {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"is broken: {error}") from None
