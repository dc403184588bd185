"""Every release that any revision of the evidence shows, counted once, and what they spent together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.privacy.evidence import CHARGES, CHOICES, LEDGER, METRICS, PLAN, TRACE, Evidence
from stages.privacy.findings import Finding, Severity, shown
from stages.privacy.history import History
from stages.privacy.ledger_findings import checked_history
from stages.privacy.signature_findings import chain_of


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The evidence of one commit, or of the checkout."""

    revision: str | None
    is_past: bool
    """The evidence that was asked about builds on it."""
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A release as one file of one moment shows it."""

    population: str
    release: str
    stage: str
    split: str
    unit: str
    relation: str
    event: Mapping[str, Any] | None
    """Its serialised privacy event; None where the file does not say."""
    file: str
    revision: str | None


@dataclass(kw_only=True)
class Population:
    """What all moments together show of one population."""

    name: str
    is_public: bool = True
    """Every moment declares it public."""
    deltas: set[float] = field(default_factory=set)
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    """By release."""
    ledger: History | None = None
    """What the longest chain tells."""

    @property
    def severity(self) -> Severity:
        """Return how bad it is when something about this population cannot be shown."""
        return "warning" if self.is_public else "error"


@dataclass(frozen=True)
class Census:
    """The populations, by name, and what does not fit together."""

    populations: Mapping[str, Population]
    findings: tuple[Finding, ...]


def census_of(moments: Sequence[Moment]) -> Census:
    """Count the releases of all moments by their id.

    What cannot be read at a moment is an error, and a warning where it declares its population public.
    """
    populations: dict[str, Population] = {}
    found: list[Finding] = []
    for moment in moments:
        _declare(moment, populations)
    for moment in moments:
        found += _unreadable(moment, populations)
        for seen in _seen(moment):
            population = populations.setdefault(
                seen.population, Population(name=seen.population, is_public=False)
            )
            population.seen.setdefault(seen.release, []).append(seen)
    found += _went_back(moments, populations)
    for name in sorted(populations):
        found += _ledgers(populations[name], moments)
        found += _releases(populations[name])
    return Census(populations, tuple(found))


def _declare(moment: Moment, populations: dict[str, Population]) -> None:
    declared = _dict(moment.evidence.values.get(PLAN)).get("population")
    plan = _dict(moment.evidence.values.get(PLAN))
    name = _dict(declared).get("name")
    if isinstance(name, str):
        population = populations.setdefault(name, Population(name=name))
        population.is_public &= _dict(declared).get("public") is True
        if isinstance(plan.get("delta"), float) and 0 < plan["delta"] < 1:
            population.deltas.add(plan["delta"])


def _unreadable(moment: Moment, populations: Mapping[str, Population]) -> Iterator[Finding]:
    if moment.revision is None:
        return  # the audit of the evidence asked about has said it
    population = populations.get(_population_of(moment))
    for finding in moment.evidence.unreadable:
        severity = population.severity if population else "error"
        yield Finding(finding.file, finding.problem, severity, moment.revision)


def _went_back(moments: Sequence[Moment], populations: Mapping[str, Population]) -> Iterator[Finding]:
    """Yield evidence of an older version than a commit that it builds on: its rules ask for less."""
    asked = next((moment for moment in moments if moment.revision is None), None)
    version = 0 if asked is None else _version(asked)
    later = next((one for one in moments if one.is_past and _version(one) > version > 0), None)
    if later is not None:
        declared = populations.get(_population_of(asked)) if asked else None
        yield Finding(
            PLAN,
            f"is of version {version}, and {_at(later.revision)} before it of version {_version(later)}",
            declared.severity if declared else "error",
        )


def _version(moment: Moment) -> int:
    version = _dict(moment.evidence.values.get(PLAN)).get("version")
    return version if type(version) is int else 0


def _population_of(moment: Moment) -> str:
    return str(_dict(_dict(moment.evidence.values.get(PLAN)).get("population")).get("name"))


def _seen(moment: Moment) -> Iterator[Seen]:
    values, where = moment.evidence.values, moment.revision
    listed = _dict(values.get(CHARGES)).get("charges")
    charges = [_dict(charge) for charge in (listed if isinstance(listed, list) else [])]
    for charge in charges:
        yield from _of_charge(charge, CHARGES, where)
    for file in (*CHOICES, METRICS):
        yield from _of_charge(_dict(_dict(values.get(file)).get("charge")), file, where)
    trace, plan = _dict(values.get(TRACE)), _dict(values.get(PLAN))
    release, population = trace.get("release"), trace.get("population")
    if isinstance(release, str) and isinstance(population, str):
        yield Seen(
            population=population,
            release=release,
            stage="finetune",
            split="train",
            unit=str(_dict(plan.get("population")).get("unit")),
            relation=str(plan.get("relation")),
            event=None,
            file=TRACE,
            revision=where,
        )


def _of_charge(charge: Mapping[str, Any], file: str, revision: str | None) -> Iterator[Seen]:
    words = [charge.get(key) for key in ("population", "release", "stage", "split", "unit", "relation")]
    if all(isinstance(word, str) for word in words) and isinstance(charge.get("event"), dict):
        population, release, stage, split, unit, relation = map(str, words)
        yield Seen(
            population=population,
            release=release,
            stage=stage,
            split=split,
            unit=unit,
            relation=relation,
            event=charge["event"],
            file=file,
            revision=revision,
        )


def _ledgers(population: Population, moments: Sequence[Moment]) -> Iterator[Finding]:
    """Choose the longest chain, and yield every other that is not a beginning of it."""
    chains: list[tuple[Moment, list[str], History]] = []
    for moment in moments:
        value = moment.evidence.values.get(LEDGER)
        if value is None or value.get("population") != population.name:
            continue
        try:
            chains.append((moment, chain_of(moment.evidence) or [], checked_history(value)))
        except ValueError as error:
            if moment.revision is not None:
                yield Finding(LEDGER, str(error), population.severity, moment.revision)
    if not chains:
        return
    longest_at, longest, population.ledger = max(chains, key=lambda chain: len(chain[1]))
    for _, _, history in chains:
        if history.opened is not None:
            population.is_public &= history.opened.public
    for moment, chain, _ in chains:
        yield from _not_its_beginning(population, moment, chain, longest_at, longest)


def _not_its_beginning(
    population: Population, moment: Moment, chain: list[str], longest_at: Moment, longest: list[str]
) -> Iterator[Finding]:
    """Yield where a chain is not the beginning of the longest, and where that asked about is not the end."""
    pairs = enumerate(zip(chain, longest, strict=False), 1)
    fork = next((number for number, (one, other) in pairs if one != other), None)
    if fork is not None:
        yield Finding(
            LEDGER,
            f"is another chain of population {shown(population.name)} than {_at(longest_at.revision)} has: "
            f"they part at entry {fork}",
            "error",
            moment.revision,
        )
    elif moment.revision is None and len(chain) < len(longest):
        more = f"{_at(longest_at.revision)} holds {len(longest) - len(chain)} more entries"
        yield Finding(
            LEDGER,
            f"was cut: {more}, and this builds on it" if longest_at.is_past else f"is not the latest: {more}",
            population.severity if longest_at.is_past else "warning",
        )


def _releases(population: Population) -> Iterator[Finding]:
    """Yield releases that contradict themselves, and those that no ledger entry covers."""
    covered = population.ledger.releases if population.ledger else {}
    for release in sorted(population.seen):
        seen = population.seen[release]
        told = [one for one in seen if one.event is not None]
        if not told:
            yield Finding(
                TRACE,
                f"shows release {shown(release)}, which no charge covers",
                population.severity,
                seen[0].revision,
            )
        for one in told[1:]:
            if (one.event, one.split, one.unit, one.relation) != (
                told[0].event,
                told[0].split,
                told[0].unit,
                told[0].relation,
            ):
                yield Finding(
                    one.file,
                    f"charges release {shown(release)} otherwise than {_at(told[0].revision)}: "
                    f"{shown(one.event)}, not {shown(told[0].event)}",
                    "error",
                    one.revision,
                )
                break
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
                "error",
                told[0].revision,
            )


def events_of(population: Population) -> dict[str, list[Mapping[str, Any]]]:
    """Return the serialised events of every release by split, those that only the ledger knows included.

    A release counts by its charges where it has any, for each different one of them, and else by the ledger.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for release in sorted(population.seen):
        different: list[tuple[str, Mapping[str, Any]]] = []
        for one in population.seen[release]:
            if one.event is not None and (one.split, one.event) not in different:
                different.append((one.split, one.event))
        for split, event in different:
            found.setdefault(split, []).append(event)
    for release, known in (population.ledger.releases if population.ledger else {}).items():
        if all(one.event is None for one in population.seen.get(release, [])):
            found.setdefault(known.split, []).append(known.event)
    return found


def _at(revision: str | None) -> str:
    return "the evidence asked about" if revision is None else f"commit {revision[:12]}"


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
