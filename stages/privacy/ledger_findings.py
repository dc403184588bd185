"""Check an exported ledger by the rules of its writer, and against the plan and the charges of the pass."""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.privacy.artifact_names import is_plain
from stages.privacy.chain import AbandonBody, Body, ReserveBody, SettleBody, chain_from_json, entry_from_json
from stages.privacy.events import event_from_json
from stages.privacy.evidence import LEDGER, METRICS, PLAN, TRACE, Evidence
from stages.privacy.findings import Finding, shown
from stages.privacy.history import History, history_of
from stages.privacy.plan import Plan
from stages.privacy.priceable import require_priceable
from stages.privacy.signature_findings import artifacts_of
from stages.privacy.split_rule import source_field_rule


def ledger_findings(
    plan: Plan, evidence: Evidence, charges: Mapping[str, Any], history: History
) -> Iterator[Finding]:
    """Yield where the ledger, whose rules were checked, is not that of the plan, or lacks a release."""
    if history.population != plan.population.name:
        yield Finding(
            LEDGER,
            f"is of population {shown(history.population)}, and the plan of {shown(plan.population.name)}",
        )
        return
    yield from _constants(plan, history)
    yield from _covered(charges, history)
    yield from _released(evidence, charges)
    yield from _exact_figures(plan, evidence, history)


def export_findings(evidence: Evidence) -> Iterator[Finding]:
    """Yield every exported ledger that breaks a rule."""
    for file, value in evidence.ledgers().items():
        if file != LEDGER:
            try:
                checked_history(value)
            except ValueError as error:
                yield Finding(file, str(error))


def checked_history(value: Mapping[str, Any]) -> History:
    """Return the history that a stored chain tells; anything wrong with it is a ValueError.

    Guarantee: beside the rules of its writer, no event in it keeps an accountant busy for ever, and no name
    of an artifact leads elsewhere.
    """
    try:
        chain = chain_from_json(value, "the ledger")
        for entry in chain:
            _require_harmless(entry.body)
        return history_of(str(value.get("population")), chain)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"is broken: {error.args[0] if error.args else error}") from None


def _require_harmless(body: Body) -> None:
    if isinstance(body, ReserveBody | SettleBody | AbandonBody):
        require_priceable(event_from_json(body.event))
    names = body.released if isinstance(body, SettleBody) else ()
    for name in names:
        if not is_plain(name):
            raise ValueError(f"it settles the artifact {shown(name)}, which is no plain path")


def _constants(plan: Plan, history: History) -> Iterator[Finding]:
    opened = history.opened
    if opened is None:
        yield Finding(LEDGER, "was never opened, so that nothing on the population is covered")
        return
    constants = {
        "public": (opened.public, plan.population.public),
        "unit": (opened.unit, plan.population.unit),
        "max_units": (opened.max_units, plan.population.max_units),
        "relation": (opened.relation, plan.relation),
    }
    for name, (before, now) in constants.items():
        if before != now:
            yield Finding(
                PLAN, f"counts with {name} {shown(now)}; the ledger was opened with {shown(before)}"
            )
    if not opened.public and opened.limit is None:
        yield Finding(LEDGER, "has no limit, and its population is not public")
    if opened.limit is not None and opened.limit.delta >= 1 / opened.max_units:
        yield Finding(
            LEDGER,
            f"has a limit at delta {opened.limit.delta}, which is not below 1 / max_units: at that delta one "
            "unit may be published",
        )
    if plan.others.composition == "parallel" and history.composition != "parallel":
        yield Finding(
            PLAN, "adds splits in parallel; by the rules that the ledger records they compose in sequence"
        )


def _exact_figures(plan: Plan, evidence: Evidence, history: History) -> Iterator[Finding]:
    """Yield exact figures without a charge on a random part of people who are not public."""
    source = evidence.lock.parameter("evaluate", "data", "private")
    split = source.get("split") if isinstance(source, dict) else None
    is_exact = evidence.values[METRICS]["charge"]["release"] is None
    named = split if isinstance(split, str) and source_field_rule(split) in history.rules else None
    if is_exact and not plan.population.admits_exact_figures(named):
        yield Finding(
            METRICS,
            "charges nothing for exact figures on a random part of people who are not public: no field of "
            "the source, by dvc.lock and by the ledger, names held-out records that are",
        )


def _covered(charges: Mapping[str, Any], history: History) -> Iterator[Finding]:
    for charge in charges["charges"]:
        name = charge["release"]
        known = None if name is None else history.releases.get(name)
        if name is None:
            continue
        if known is None:
            yield Finding(LEDGER, f"does not hold release {shown(name)} of stage {shown(charge['stage'])}")
        elif known.state != "settled":
            yield Finding(LEDGER, f"holds release {name} as {known.state}, and it was published")
        else:
            for key in ("stage", "split", "sampler", "event"):
                if getattr(known, key) != charge[key]:
                    yield Finding(
                        LEDGER,
                        f"says {key} {shown(getattr(known, key))} of release {name}; the evidence gives "
                        f"{shown(charge[key])}",
                    )


def _released(evidence: Evidence, charges: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield files that the ledger recorded as released otherwise, or by other code, than they are here."""
    here = artifacts_of(evidence)
    made = {charge["release"]: charge["released"] for charge in charges["charges"]}
    trace = evidence.values[TRACE]
    for number, item in enumerate(evidence.values[LEDGER]["entries"], 1):
        body = entry_from_json(item, f"entry {number}").body
        if not isinstance(body, SettleBody) or body.release not in made:
            continue
        file = TRACE if body.release == trace["release"] else made[body.release]
        told = trace if file == TRACE else evidence.values[file].get("made_by")
        ran = [told.get(key) for key in ("code", "commit", "versions")] if isinstance(told, dict) else told
        if ran != [body.code, body.commit, body.versions]:
            yield Finding(file, "names other code, commit or versions than the ledger settled")
        for path, digest in body.released.items():
            if here.get(path, digest) != digest:
                yield Finding(path, f"is not the file that release {body.release} settled in the ledger")
        if body.release == trace["release"]:
            missing = {f"models/adapter/{name}" for name in trace["adapter"]} - body.released.keys()
            for path in sorted(missing):
                yield Finding(path, f"is named by the trace and not by release {body.release} in the ledger")
