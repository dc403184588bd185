"""Which private units are trained on and which are held out, and which may be there at all."""

from collections.abc import Sequence

from stages.ledger.population_key import PopulationKey
from stages.records.row import Row, SourcedRow, Split


def split_of(unit: str, key: PopulationKey, heldout: float) -> Split:
    """Return the split of a unit, held out with chance ``heldout``.

    Guarantee: a function of the unit's own id and of the population's key. Adding or removing a unit moves
    no other unit, so that held-out and training charges compose in parallel.
    """
    return "heldout" if key.fraction("split", unit.encode()) < heldout else "train"


def split_rows(rows: Sequence[SourcedRow], key: PopulationKey, heldout: float) -> tuple[list[Row], list[Row]]:
    """Return the rows to train on and the held-out rows; a split that the source declared stands.

    Edge cases: an empty split is a ValueError, for neither training nor evaluation could use it.
    """
    splits: dict[Split, list[Row]] = {"train": [], "heldout": []}
    for sourced in rows:
        splits[sourced.split or split_of(sourced.row.unit, key, heldout)].append(sourced.row)
    for split, found in splits.items():
        if not found:
            raise ValueError(f"no private unit falls into {split}: give more units or change data.heldout")
    return splits["train"], splits["heldout"]


def check_units(
    private: Sequence[SourcedRow], public: Sequence[SourcedRow], canaries: Sequence[Row], max_units: int
) -> None:
    """Refuse more private units, canaries included, than declared, and units that are two things at once.

    The sentence tells the declared bound and neither a count nor an id, which are private facts.
    """
    units, made_up = {sourced.row.unit for sourced in private}, {row.unit for row in canaries}
    if len(units) + len(made_up) > max_units:
        raise ValueError(
            f"the private records{' and the canaries' if made_up else ''} have more units than "
            f"population.max_units = {max_units}: declare a larger bound and a delta below its inverse"
        )
    if made_up & (units | {sourced.row.unit for sourced in public}):
        raise ValueError(
            "a unit of the records is named like a canary: set canaries.seed to another number, which names "
            "canaries anew"
        )
    if any(sourced.row.unit in units for sourced in public):
        raise ValueError(
            "public records must not share a unit with the private ones: drop them from data.public, "
            "or rename its units if they only look alike"
        )
