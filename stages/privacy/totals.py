"""What the releases on a population spent, hold reserved, and leave."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import dp_accounting

from stages.privacy.accounting import Composition
from stages.privacy.chain import Split
from stages.privacy.events import event_from_json
from stages.privacy.history import SPLITS, History, Release
from stages.privacy.renyi_filter import RenyiFilter


@dataclass(frozen=True, kw_only=True)
class SplitTotals:
    """RDP at the order of the filter, of the releases on one split."""

    spent: float
    """By settled and abandoned releases."""
    reserved: float
    """By releases that are neither, each at its worst case."""
    remaining: float
    """For a release on this split, with everything that composes with it counted."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The account of a population that has a limit."""

    limit: RenyiFilter
    composition: Composition
    splits: Mapping[Split, SplitTotals]
    spent: float
    """Composed over the splits: the larger in parallel, the sum in sequence."""
    reserved: float
    """What reservations add to ``spent``, composed."""
    epsilon: float
    """Of everything spent and reserved, at the limit's delta."""

    @property
    def remaining(self) -> float:
        """Return what is left in the split that has least."""
        return min(split.remaining for split in self.splits.values())


def totals_of(history: History) -> Totals | None:
    """Return the account of a population; None where nothing limits it, or nothing was reserved yet."""
    if history.opened is None or history.opened.limit is None:
        return None
    limit = history.opened.limit
    spent = {split: history.sum_of(split, "settled") + history.sum_of(split, "abandoned") for split in SPLITS}
    held = {split: history.sum_of(split, "reserved") for split in SPLITS}
    total = history.total()
    if history.composition == "parallel":
        composed, used = max(spent.values()), {split: spent[split] + held[split] for split in SPLITS}
    else:
        composed, used = sum(spent.values(), Fraction()), dict.fromkeys(SPLITS, total)
    splits = {
        split: SplitTotals(
            spent=float(spent[split]),
            reserved=float(held[split]),
            remaining=max(0.0, limit.budget - float(used[split])),
        )
        for split in SPLITS
    }
    return Totals(
        limit=limit,
        composition=history.composition,
        splits=splits,
        spent=float(composed),
        reserved=float(total - composed),
        epsilon=limit.epsilon_of(float(total)),
    )


def grouped(releases: Iterable[Release]) -> list[tuple[dp_accounting.DpEvent, int]]:
    """Return each distinct event that ``releases`` count as, with how often it does, in a fixed order.

    An accountant that composes a thousand releases of fifty kinds prices fifty events.
    """
    counts: Counter[str] = Counter(json.dumps(release.event, sort_keys=True) for release in releases)
    return [(event_from_json(json.loads(text)), counts[text]) for text in sorted(counts)]
