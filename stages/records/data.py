"""Where the user's records lie, and how the private ones are split."""

from dataclasses import dataclass

from stages.privacy.accountants import Relation
from stages.privacy.accounting import Composition
from stages.privacy.split_rule import is_function_of_the_unit, keyed_hash_rule, source_field_rule
from stages.records.source import Source


@dataclass(frozen=True, kw_only=True)
class Data:
    """Section ``data`` of params.yaml."""

    private: Source
    public: Source
    heldout: float
    """Chance that a private unit is held out."""

    def __post_init__(self) -> None:
        """Refuse a chance that leaves a split empty, and a split of public records, which are one set."""
        if not 0 < self.heldout < 1:
            raise ValueError(f"data.heldout must lie between 0 and 1, got {self.heldout}")
        if self.public.split is not None:
            raise ValueError(
                f"data.public.split must be null: public records are one set, got {self.public.split!r}"
            )

    def composition(self, relation: Relation) -> Composition:
        """Return how charges on training and held-out units of one pass add up.

        In parallel where the split of a unit is a keyed hash of its own id and neighbours differ by one unit;
        a split that the source names may follow anything, and a replaced unit may come back in the other.
        """
        is_steady = is_function_of_the_unit(self.split_rule())
        return "parallel" if is_steady and relation == "add_or_remove_one" else "sequential"

    def split_rule(self) -> str:
        """Return, in the ledger's words, what decides the split of a private unit."""
        split = self.private.split
        return keyed_hash_rule(self.private.unit, self.heldout) if split is None else source_field_rule(split)
