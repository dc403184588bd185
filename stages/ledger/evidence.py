"""What this checkout already shows of a population's ledger: no other ledger may begin its budget again."""

from collections.abc import Sequence
from pathlib import Path

from stages.core.files import read_json
from stages.privacy.chain import Entry, chain_from_json

ACCOUNTED = Path("data/account/ledger.json")
"""Where stage account leaves the chain."""
EXPORTED = Path("data/ledger")
"""Where ``dualpriv ledger export`` puts chains."""


def require_nothing_lost(population: str, entries: Sequence[Entry], place: str) -> None:
    """Refuse a chain that lacks an entry which the evidence in the current directory has.

    Guarantee: a ledger that was lost, restored from an old copy or replaced by an empty one gives no budget
    where its evidence lies. Whoever removes the evidence too is beyond this; Git then shows who did.
    """
    for file in (ACCOUNTED, *sorted(EXPORTED.glob("*.json"))):
        if not file.exists():
            continue
        shown = chain_from_json(read_json(file), str(file))
        if shown and shown[0].population == population and shown != list(entries[: len(shown)]):
            raise ValueError(
                f"{file} has {len(shown)} entries of the ledger of population '{population}', and {place} "
                "has others or fewer: restore the ledger in which its releases were recorded, or name it in "
                "DUALPRIV_LEDGER"
            )
