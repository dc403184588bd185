"""Walk every revision of the evidence, count each release once, and compose them: the true total."""

from collections.abc import Iterator, Sequence
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

    Commits that hold the same evidence files are read once, as the oldest of them. That old evidence
    contradicts itself is a warning: what counts of it is which releases it shows.
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


def _moments(repository: Repository, commits: Sequence[str]) -> Iterator[Moment]:
    """Yield each distinct state of the evidence, the oldest first."""
    past = set(repository.ancestors())
    states: dict[tuple[tuple[str, str], ...], list[str]] = {}
    exports = [path for path in repository.ever(EXPORTS) if is_export(path)]
    for commit, blobs in repository.blobs(commits, [*READ, *exports]).items():
        if any(file in blobs for file in (*FILES, *exports)):
            states.setdefault(tuple(sorted(blobs.items())), []).append(commit)
    for holders in sorted(states.values(), key=lambda holders: commits.index(holders[-1]), reverse=True):
        evidence = evidence_at(Revision(repository, holders[-1]))
        yield Moment(revision=holders[-1], is_past=not past.isdisjoint(holders), evidence=evidence)


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
