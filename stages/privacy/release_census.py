"""Every release that any revision of the evidence shows, counted once, and what they spent together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.privacy.accounting import Composition
from stages.privacy.evidence import LEDGER, PLAN
from stages.privacy.findings import Finding, Severity, shown
from stages.privacy.history import History, Release
from stages.privacy.ledger_findings import checked_history
from stages.privacy.moments import Moment, Seen, named, seen_in
from stages.privacy.signature_findings import chain_of


@dataclass(kw_only=True)
class Population:
    """What all moments together show of one population."""

    name: str
    is_here: bool = False
    """Evidence of this project shows it, and not only what lies beside it."""
    declarations: list[bool] = field(default_factory=list)
    """What each plan and each ledger says: public or not."""
    deltas: set[float] = field(default_factory=set)
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    """By release."""
    chains: list[History] = field(default_factory=list)
    """What every chain tells, the longest last: all but it are beginnings of it, or forks."""

    @property
    def ledger(self) -> History | None:
        """Return what the longest chain tells."""
        return self.chains[-1] if self.chains else None

    @property
    def is_public(self) -> bool:
        """Return whether whoever declares it declares it public; a population of which nobody does is not."""
        return bool(self.declarations) and all(self.declarations)

    @property
    def released(self) -> dict[str, Release]:
        """Return by id what the chains tell of every release: the longest of those that hold it."""
        return {name: known for chain in self.chains for name, known in chain.releases.items()}

    @property
    def composition(self) -> Composition:
        """Return how charges of the splits compose: in parallel by one rule in all chains only."""
        rules = {rule for chain in self.chains for rule in chain.rules}
        return self.ledger.composition if self.ledger and len(rules) == 1 else "sequential"

    @property
    def severity(self) -> Severity:
        """Return how bad it is when something about this population cannot be shown."""
        return "error" if self.is_here and not self.is_public else "warning"


@dataclass(frozen=True)
class Census:
    """The populations, by name, and what does not fit together."""

    populations: Mapping[str, Population]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Chain:
    moment: Moment
    file: str
    history: History

    def digests(self) -> list[str]:
        return chain_of(self.moment.evidence, self.file) or []


def census_of(moments: Sequence[Moment]) -> Census:
    """Count the releases of all moments by their id.

    What cannot be read at a moment is an error. It is a warning where every moment declares its population
    public, and where only evidence beside that of this project shows the population.
    """
    populations: dict[str, Population] = {}
    found: list[Finding] = []
    for moment in moments:
        _declare(moment, populations)
    chains = [*_chains(moments, populations, found)]
    for moment in moments:
        for seen in seen_in(moment):
            _of(populations, seen.population).seen.setdefault(seen.release, []).append(seen)
        found += _unreadable(moment, populations)
    found += _went_back(moments, populations)
    for name in sorted(populations):
        own = [chain for chain in chains if chain.history.population == name]
        found += [*_one_chain(populations[name], own), *_releases(populations[name])]
    return Census(populations, tuple(found))


def events_of(population: Population) -> dict[str, list[Mapping[str, Any]]]:
    """Return the serialised events of every release by split, those that only the ledger knows included.

    A release counts by what evidence shows of it, for each different event of it, and else by the ledger.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for release in sorted(population.seen):
        different: list[tuple[str, Mapping[str, Any]]] = []
        for one in population.seen[release]:
            if one.event is not None and (one.split, one.event) not in different:
                different.append((one.split, one.event))
        for split, event in different:
            found.setdefault(split, []).append(event)
    for release, known in population.released.items():
        if all(one.event is None for one in population.seen.get(release, [])):
            found.setdefault(known.split, []).append(known.event)
    return found


def _of(populations: dict[str, Population], name: str) -> Population:
    return populations.setdefault(name, Population(name=name))


def _declare(moment: Moment, populations: dict[str, Population]) -> None:
    name, delta = moment.population.get("name"), moment.plan.get("delta")
    if isinstance(name, str):
        population = _of(populations, name)
        population.declarations.append(moment.population.get("public") is True)
        if isinstance(delta, float) and 0 < delta < 1:
            population.deltas.add(delta)
    if not moment.is_beside:
        ledgers = {str(value.get("population")) for value in moment.evidence.ledgers().values()}
        for one in ledgers | {seen.population for seen in seen_in(moment)} | {name}:
            if isinstance(one, str):
                _of(populations, one).is_here = True


def _chains(
    moments: Sequence[Moment], populations: dict[str, Population], found: list[Finding]
) -> Iterator[_Chain]:
    """Yield every chain that keeps its rules; of the evidence asked about the audit says which do not."""
    for moment in moments:
        for file, value in moment.evidence.ledgers().items():
            population = _of(populations, str(value.get("population")))
            try:
                history = checked_history(value)
            except ValueError as error:
                if moment.revision is not None:
                    found.append(Finding(file, str(error), population.severity, moment.revision))
                continue
            if history.opened is not None:
                population.declarations.append(history.opened.public)
            yield _Chain(moment, file, history)


def _unreadable(moment: Moment, populations: Mapping[str, Population]) -> Iterator[Finding]:
    if moment.revision is None:
        return  # the audit of the evidence asked about has said it
    population = populations.get(str(moment.population.get("name")))
    for finding in moment.evidence.unreadable:
        unknown: Severity = "warning" if moment.is_beside else "error"
        severity = population.severity if population else unknown
        yield Finding(finding.file, finding.problem, severity, moment.revision)


def _went_back(moments: Sequence[Moment], populations: Mapping[str, Population]) -> Iterator[Finding]:
    """Yield evidence of an older version than a commit that it builds on: its rules ask for less."""
    for asked in moments:
        later = next((one for one in moments if one.is_past and one.version > asked.version > 0), None)
        if asked.revision is None and later is not None:
            yield Finding(
                PLAN,
                f"is of version {asked.version}, and {later.named()} before it of version {later.version}",
                _of(dict(populations), str(asked.population.get("name"))).severity,
            )


def _one_chain(population: Population, chains: Sequence[_Chain]) -> Iterator[Finding]:
    """Count what every chain tells, and yield each that is not a beginning of the longest.

    What only a chain that parts from it tells was released all the same.
    """
    if not chains:
        return
    longest = max(chains, key=lambda chain: chain.history.length)
    whole = longest.digests()
    population.chains = sorted((chain.history for chain in chains), key=lambda history: history.length)
    population.chains.append(longest.history)
    for chain in chains:
        pairs = enumerate(zip(chain.digests(), whole, strict=False), 1)
        fork = next((number for number, (one, other) in pairs if one != other), None)
        if fork is not None:
            yield Finding(
                chain.file,
                f"is another chain of population {shown(population.name)} than {longest.moment.named()} has: "
                f"they part at entry {fork}",
                population.severity,
                chain.moment.revision,
            )
    asked = [chain for chain in chains if chain.moment.revision is None]
    held = max((chain.history.length for chain in asked), default=len(whole))
    if held < len(whole):
        more = f"{longest.moment.named()} holds {len(whole) - held} more entries"
        is_past = longest.moment.is_past
        yield Finding(
            LEDGER,
            f"was cut: {more}, and this builds on it" if is_past else f"is not the latest: {more}",
            population.severity if is_past else "warning",
        )


def _releases(population: Population) -> Iterator[Finding]:
    """Yield releases that contradict themselves, and those that no charge or no ledger entry covers."""
    covered = population.released
    always: Severity = "error" if population.is_here else "warning"
    for release in sorted(population.seen):
        seen = population.seen[release]
        told = [one for one in seen if one.event is not None]
        if not any(one.is_charge for one in seen):
            what = "which no charge covers" + ("" if told else ", and no plan says what it spent")
            yield Finding(
                seen[0].file, f"shows release {shown(release)}, {what}", population.severity, seen[0].revision
            )
        other = next((one for one in told if one.counts_as() != told[0].counts_as()), None)
        if other is not None:
            yield Finding(
                other.file,
                f"charges release {shown(release)} otherwise than {named(told[0].revision)}: "
                f"{shown(other.event)}, not {shown(told[0].event)}",
                always,
                other.revision,
            )
        if release not in covered:
            yield Finding(
                seen[0].file,
                f"shows release {shown(release)} of population {shown(population.name)}, in no ledger",
                population.severity,
                seen[0].revision,
            )
        elif told and told[0].event != covered[release].event and covered[release].state != "reserved":
            yield Finding(
                told[0].file,
                f"charges release {shown(release)} otherwise than the ledger: {shown(told[0].event)}, not "
                f"{shown(covered[release].event)}",
                always,
                told[0].revision,
            )
