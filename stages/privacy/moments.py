"""The evidence of one moment, a commit or the checkout, and the releases that it shows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.core.canonical import canonical_digest
from stages.privacy.evidence import CHARGES, CHOICES, METRICS, PLAN, TRACE, Evidence
from stages.privacy.findings import shown


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The evidence of one commit, or of the checkout."""

    revision: str | None
    """The commit, or ``COMMIT:FOLDER`` where the evidence lies elsewhere in it; None for the checkout."""
    is_past: bool
    """The evidence that was asked about builds on it."""
    is_beside: bool = False
    """It lies in another folder, where evidence lies still: another project's, or a copy of this one's."""
    evidence: Evidence

    @property
    def plan(self) -> Mapping[str, Any]:
        """Return the plan's JSON value, empty where there is none."""
        return _mapping(self.evidence.values.get(PLAN))

    @property
    def population(self) -> Mapping[str, Any]:
        """Return the population that the plan declares, empty where it declares none."""
        return _mapping(self.plan.get("population"))

    @property
    def version(self) -> int:
        """Return the version of the plan, 0 where there is none."""
        version = self.plan.get("version")
        return version if type(version) is int else 0

    def named(self) -> str:
        """Return in words where this is."""
        return named(self.revision)


def named(revision: str | None) -> str:
    """Return in words where something is."""
    return "the evidence asked about" if revision is None else f"commit {abbreviated(revision)}"


def abbreviated(revision: str) -> str:
    """Return a commit, or ``COMMIT:FOLDER``, as it is told to people.

    >>> abbreviated("05a9f02980f9e1f0a7f4b7b4b0d8e8a1c2d3e4f5:old/")
    "05a9f02980f9:'old/'"
    """
    commit, _, folder = revision.partition(":")
    return commit[:12] + (f":{shown(folder)}" if folder else "")


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
    """Its serialised privacy event; None where nothing at that moment tells it."""
    is_charge: bool
    file: str
    revision: str | None

    def counts_as(self) -> tuple[Any, ...]:
        """Return what has to be the same wherever the release is seen."""
        return (self.split, self.unit, self.relation, self.event)


def seen_in(moment: Moment) -> Iterator[Seen]:
    """Yield the releases that charges, outputs and trace of a moment show, whatever else is missing there."""
    values = moment.evidence.values
    listed = _mapping(values.get(CHARGES)).get("charges")
    for charge in listed if isinstance(listed, list) else []:
        yield from _of_charge(_mapping(charge), CHARGES, moment)
    for file in (*CHOICES, METRICS):
        yield from _of_charge(_mapping(_mapping(values.get(file)).get("charge")), file, moment)
    trace = _mapping(values.get(TRACE))
    if isinstance(trace.get("release"), str) and isinstance(trace.get("population"), str):
        yield Seen(
            population=trace["population"],
            release=trace["release"],
            stage="finetune",
            split="train",
            unit=str(moment.population.get("unit")),
            relation=str(moment.plan.get("relation")),
            event=_executed(trace, moment.plan),
            is_charge=False,
            file=TRACE,
            revision=moment.revision,
        )


def _of_charge(charge: Mapping[str, Any], file: str, moment: Moment) -> Iterator[Seen]:
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
            is_charge=file == CHARGES,
            file=file,
            revision=moment.revision,
        )


def _executed(trace: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the event of a trace under the plan beside it; None where that is another plan."""
    steps, sampling = trace.get("steps"), _mapping(plan.get("sampling"))
    same = plan and trace.get("plan") == canonical_digest(dict(plan))
    if not same or not isinstance(steps, list):
        return None
    if plan.get("mechanism") == "none":
        return {"class": "NonPrivateDpEvent"}
    noise = "LaplaceDpEvent" if plan.get("mechanism") == "laplace" else "GaussianDpEvent"
    once = {"class": noise, "noise_multiplier": plan.get("noise_multiplier")}
    sampled = {
        "class": "PoissonSampledDpEvent",
        "sampling_probability": sampling.get("rate"),
        "event": once,
    }
    return {"class": "SelfComposedDpEvent", "count": len(steps), "event": sampled}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
