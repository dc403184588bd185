"""Walk every revision of the evidence, count each release once, and compose them: the true total."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.evidence_files import evidence_at
from pipeline.evidence_source import Repository, Revision
from stages.privacy.audit import audit_of
from stages.privacy.evidence import CHARGES, EXPORTS, FILES, READ, Evidence, is_export
from stages.privacy.findings import Finding, is_sound, shown
from stages.privacy.moments import Moment, Seen
from stages.privacy.recomputed import Priced, disagreements, priced_population
from stages.privacy.release_census import Population, census_of
from stages.privacy.totals import totals_of


def all_revisions(root: Path, asked: Evidence) -> tuple[dict[str, Any], list[Finding]]:
    """Return what every commit that any ref reaches shows beside ``asked``, the evidence of the checkout.

    Evidence counts in whatever folder of the repository it lay. Commits that hold the same evidence files are
    read once, as the oldest of them. That old evidence contradicts itself is a warning: what counts of it is
    which releases it shows.
    """
    repository = Repository(root)
    commits = repository.commits()
    past = list(_moments(repository, commits))
    census = census_of([Moment(revision=None, is_past=False, evidence=asked), *past])
    found = [*census.findings, *(finding for moment in past for finding in _contradictions(moment))]
    listed = []
    for _, population in sorted(census.populations.items()):
        prices = list[Priced]()
        try:
            prices = priced_population(population)
        except ValueError as error:
            total = f"population {shown(population.name)} has no total: {error}"
            found.append(Finding(CHARGES, total, population.severity))
        found += disagreements(prices)
        listed.append(_population(population, prices, [moment.revision for moment in past]))
    return {"commits": len(commits), "states": len(past), "populations": listed}, found


@dataclass(frozen=True)
class _State:
    """The same evidence files in a folder of one or more commits."""

    repository: Repository
    holders: Sequence[str]
    """The commits, newest first."""
    is_beside: bool
    """The folder is another than that of the checkout, and at its commit evidence lies there still."""

    def moment(self, here: str, past: Collection[str]) -> Moment:
        oldest, folder = self.holders[-1], self.repository.folder
        return Moment(
            revision=oldest if folder == here else f"{oldest}:{folder or '.'}",
            is_past=not self.is_beside and any(holder in past for holder in self.holders),
            is_beside=self.is_beside,
            evidence=evidence_at(Revision(self.repository, oldest)),
        )


def _moments(repository: Repository, commits: Sequence[str]) -> Iterator[Moment]:
    """Yield each distinct state of the evidence in any folder, the oldest first."""
    past, age = repository.ancestors(), {commit: number for number, commit in enumerate(commits)}
    head = past[0] if past else None
    elsewhere = {*repository.folders_with((*FILES, f"{EXPORTS}/*.json"))} - {repository.folder}
    states = [*_states(repository, commits, None)]
    for folder in sorted(elsewhere):
        states += _states(replace(repository, elsewhere=folder), commits, head)
    known = {*past}
    for state in sorted(states, key=lambda state: age[state.holders[-1]], reverse=True):
        yield state.moment(repository.folder, known)


def _states(place: Repository, commits: Sequence[str], head: str | None) -> Iterator[_State]:
    """Yield the states of one folder; it lies beside the project where ``head`` still has evidence there."""
    holders: dict[tuple[tuple[str, str], ...], list[str]] = {}
    exports = [path for path in place.ever(EXPORTS) if is_export(path)]
    for commit, blobs in place.blobs(commits, [*READ, *exports]).items():
        if any(file in blobs for file in (*FILES, *exports)):
            holders.setdefault(tuple(sorted(blobs.items())), []).append(commit)
    is_beside = any(head in same for same in holders.values())
    for same in holders.values():
        yield _State(place, same, is_beside)


def _contradictions(moment: Moment) -> Iterator[Finding]:
    if moment.evidence.unreadable or moment.evidence.missing():
        return  # told by the census, and nothing to contradict
    errors = [finding for finding in audit_of(moment.evidence).findings if not is_sound([finding])]
    for finding in errors[:1]:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        yield Finding(finding.file, f"{finding.problem}{more}", "warning", moment.revision)


def _population(
    population: Population, prices: Sequence[Priced], order: Sequence[str | None]
) -> dict[str, Any]:
    covered = population.released
    limited = totals_of(population.ledger) if population.ledger else None
    only_in_ledger = [
        {
            "release": name,
            "stage": known.stage,
            "split": known.split,
            "event": known.event,
            "first_seen": None,
            "ledger": known.state,
        }
        for name, known in covered.items()
        if name not in population.seen
    ]
    shown_by_evidence = [
        _release(seen, covered[name].state if name in covered else None)
        for name, seen in population.seen.items()
    ]
    shown_by_evidence.sort(
        key=lambda one: order.index(one["first_seen"]) if one["first_seen"] else len(order)
    )
    return {
        "population": population.name,
        "public": population.is_public,
        "releases": [*shown_by_evidence, *only_in_ledger],
        "composition": population.composition,
        "ledger": None
        if population.ledger is None
        else {"length": population.ledger.length, "head": population.ledger.head},
        "recomputed": [price.to_json() for price in prices],
        "filter": None
        if limited is None
        else {
            "epsilon": limited.epsilon,
            "order": limited.limit.order,
            "limit_epsilon": limited.limit.epsilon,
            "delta": limited.limit.delta,
        },
    }


def _release(seen: Sequence[Seen], state: str | None) -> dict[str, Any]:
    first = next((one for one in seen if one.revision is not None), seen[0])
    told = next((one for one in seen if one.event is not None), first)
    return {
        "release": first.release,
        "stage": first.stage,
        "split": first.split,
        "event": told.event,
        "first_seen": first.revision,
        "ledger": state,
    }
