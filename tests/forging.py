"""Ways to forge evidence for people who have everything but the signing key.

Each starts from honest evidence and recomputes every digest that needs no key, so that only what it lies
about is left to be noticed.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from honest_evidence import PROFILE, Run, accounted, files_of, locked, name, relinked
from stored_evidence import Files, replaced

from stages.core.canonical import canonical_json
from stages.privacy.charge import declared_public, public_choice
from stages.privacy.evidence import (
    CHARGES,
    CHOICES,
    LEDGER,
    LOCK,
    METRICS,
    PLAN,
    STAGE_OF,
    STATEMENT,
    TRACE,
)
from stages.privacy.plan import Plan, read_plan
from stages.privacy.renyi_filter import Limit, budget_at

Caught = Literal["audit", "signature"]
BEFORE = Run(release="before")
"""The pass before, whose statement was true once."""
HONEST = Run(before=BEFORE, crashed=("crashed",))
OTHERS = replace(HONEST.population, name="others")


@dataclass(frozen=True)
class Forgery:
    """One lie: who notices it, at which file, in which words."""

    forge: Callable[[Files], Files]
    caught: Caught
    file: str
    words: str


def fitted(files: Files) -> Files:
    """Return files with every digest that needs no key recomputed."""
    values = {file: json.loads(files[file]) for file in (TRACE, CHARGES, STATEMENT, LEDGER)}
    values[TRACE]["plan"] = _sha256(files[PLAN])
    files = replaced(files, TRACE, canonical_json(values[TRACE]))
    for charge in values[CHARGES]["charges"]:
        if charge["released"] in (*CHOICES, METRICS):
            charge["digest"] = _sha256(files[charge["released"]])
        elif isinstance(charge["digest"], dict):
            charge["digest"] = values[TRACE]["adapter"]
    files = replaced(files, CHARGES, canonical_json(values[CHARGES]))
    entries = values[LEDGER]["entries"]
    values[STATEMENT]["ledger"] = {
        "length": len(entries),
        "head": entries[-1]["digest"] if entries else "0" * 64,
    }
    values[STATEMENT]["evidence"] = {
        file: _sha256(files[file]) for file in (PLAN, TRACE, METRICS, CHARGES, LEDGER)
    }
    files = replaced(files, STATEMENT, canonical_json(values[STATEMENT]))
    lock = json.loads(files[LOCK])
    written = {file: hashlib.md5(files[file]).hexdigest() for file in STAGE_OF if file in files}
    for stage in lock["stages"].values():
        for item in (*stage["deps"], *stage["outs"]):
            item["md5"] = written.get(item["path"], item["md5"])
    return {**files, LOCK: canonical_json(lock)}


def at(file: str, path: str, value: Any) -> Callable[[Files], Files]:
    """Return a forgery that sets one value of a file, and makes all digests fit."""
    return lambda files: fitted({**files, file: canonical_json(_set(json.loads(files[file]), path, value))})


def several(*changes: tuple[str, str, Any]) -> Callable[[Files], Files]:
    """Return a forgery that sets several values, and makes all digests fit."""

    def forge(files: Files) -> Files:
        for file, path, value in changes:
            files = {**files, file: canonical_json(_set(json.loads(files[file]), path, value))}
        return fitted(files)

    return forge


def text(file: str, before: str, after: str) -> Callable[[Files], Files]:
    """Return a forgery that replaces bytes of a file, whatever JSON that is; dvc.lock is made to fit."""

    def forge(files: Files) -> Files:
        assert before.encode() in files[file], before
        return replaced(files, file, files[file].replace(before.encode(), after.encode()))

    return forge


def chained(edit: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Files], Files]:
    """Return a forgery that edits the ledger, chains it anew, and makes the rest fit if our account would."""

    def forge(files: Files) -> Files:
        files = relinked(files, edit)
        try:
            return accounted(files, plan_in(files))
        except ValueError:
            return fitted(files)

    return forge


def dropping(*words: str) -> Callable[[list[dict[str, Any]]], None]:
    """Return an edit that takes every entry of some releases out of a ledger."""
    gone = {name(word) for word in words}

    def edit(entries: list[dict[str, Any]]) -> None:
        entries[:] = [entry for entry in entries if entry["body"].get("release") not in gone]

    return edit


def plan_in(files: Files) -> Plan:
    """Return the plan that files hold."""
    return read_plan(json.loads(files[PLAN]), PLAN)


def rewritten(**changes: Any) -> Callable[[Files], Files]:
    """Return the forgery of a whole other run, every file made to fit every other."""
    return lambda files: files_of(replace(HONEST, **changes))


def without_abandoned(files: Files) -> Files:
    """Take the run that crashed out of the ledger."""
    return chained(dropping("crashed"))(files)


def planned_only(files: Files) -> Files:
    """Claim more noise in plan, trace, charges and statement; the ledger keeps what was booked."""
    other = files_of(replace(HONEST, noise=1.6))
    return fitted({**other, LEDGER: files[LEDGER]})


def other_run(files: Files) -> Files:
    """Put the trace and the adapter of a run that nobody accounted in the place of the true ones."""
    trace = json.loads(files[TRACE])
    trace["release"], trace["adapter"]["adapter_model.safetensors"] = name("other"), name("other", 64)
    return accounted_or_fitted({**files, TRACE: canonical_json(trace)})


def accounted_or_fitted(files: Files) -> Files:
    """Return files accounted anew, as far as our own account would do that."""
    try:
        return accounted(files, plan_in(files))
    except ValueError:
        return fitted(files)


def raised_limit(entries: list[dict[str, Any]]) -> None:
    """Raise the limit to epsilon 40, and the budget with it."""
    limit = next(entry for entry in entries if entry["kind"] == "open")["body"]["limit"]
    limit.update(epsilon=40.0, budget=budget_at(limit["order"], Limit(epsilon=40.0, delta=limit["delta"])))


def another_rule(entries: list[dict[str, Any]]) -> None:
    """Record a second rule by which units were split."""
    body = {"rule": "field 'split' of the source"}
    entries.append({**json.loads(json.dumps(entries[0])), "body": body})


def settle_first(entries: list[dict[str, Any]]) -> None:
    """Settle the training before it is reserved."""
    own = [number for number, entry in enumerate(entries) if entry["body"].get("release") == name("training")]
    entries[own[0]], entries[own[1]] = entries[own[1]], entries[own[0]]


def reserve_twice(entries: list[dict[str, Any]]) -> None:
    """Book the reservation of the training a second time."""
    own = next(entry for entry in entries if entry["body"].get("release") == name("training"))
    entries.append(json.loads(json.dumps(own)))


def own_body(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the body of the training's entry of a kind."""
    return next(
        entry["body"]
        for entry in entries
        if entry["kind"] == kind and entry["body"]["release"] == name("training")
    )


def unlinked(edit: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Files], Files]:
    """Return a forgery that edits the ledger and leaves its digests, the statement's among them, to fit."""

    def forge(files: Files) -> Files:
        ledger = json.loads(files[LEDGER])
        edit(ledger["entries"])
        return fitted({**files, LEDGER: canonical_json(ledger)})

    return forge


def downgraded(files: Files) -> Files:
    """Present evidence as version 1, which knew no ledger."""
    versions = [(file, "version", 1) for file in (PLAN, TRACE, CHARGES, STATEMENT)]
    files = several(*versions)(files)
    return {file: content for file, content in files.items() if file != LEDGER}


def uncharged_profile(files: Files) -> Files:
    """Call a choice that was made on private records one on public records."""
    return _uncharged(files, PROFILE, {"records": "public", "charge": public_choice("profile")})


def exact_figures(files: Files) -> Files:
    """Publish exact figures on people who are not public, as if they were, and configure it so."""
    plan = plan_in(files)
    free = declared_public("evaluate", "heldout", plan.population, plan.relation)
    return configured("evaluate", "evaluate", release="public")(_uncharged(files, METRICS, {"charge": free}))


def _uncharged(files: Files, file: str, said: dict[str, Any]) -> Files:
    value = {**json.loads(files[file]), **said}
    del value["mechanism"], value["made_by"]
    plan = json.loads(files[PLAN])
    plan["others"]["charges"] = [one for one in plan["others"]["charges"] if one["stage"] != STAGE_OF[file]]
    plan["epsilon"] = read_plan(plan, PLAN).others.epsilon(plan_in(files).event(10), plan_in(files).target)
    return accounted_or_fitted(fitted({**files, file: canonical_json(value), PLAN: canonical_json(plan)}))


def configured(stage: str, section: str, **values: Any) -> Callable[[Files], Files]:
    """Return a forgery of what dvc.lock records that a stage ran with."""

    def forge(files: Files) -> Files:
        lock = json.loads(files[LOCK])
        lock["stages"][stage]["params"]["params.yaml"][section].update(values)
        return {**files, LOCK: canonical_json(lock)}

    return forge


def raised_delta(files: Files) -> Files:
    """Raise delta over 1 / max_units in plan, configuration and statement."""
    plan = replace(HONEST, delta=1e-3).plan()
    trace = json.loads(files[TRACE])
    trace["plan"] = _sha256(canonical_json(plan.to_json()))
    files = {**files, PLAN: canonical_json(plan.to_json()), TRACE: canonical_json(trace)}
    return accounted(files, plan)


def with_population(**changes: Any) -> Callable[[Files], Files]:
    """Return a forgery of the plan's population, configuration, trace, charges and statement included."""

    def forge(files: Files) -> Files:
        plan = json.loads(files[PLAN])
        plan["population"].update(changes)
        new = read_plan(plan, PLAN)
        moved = {PLAN: canonical_json(plan)}
        for file in (PROFILE, METRICS):
            value = json.loads(files[file])
            value["charge"].update(population=new.population.name, unit=new.population.unit)
            moved[file] = canonical_json(value)
        trace = {**json.loads(files[TRACE]), "population": new.population.name}
        moved[TRACE] = canonical_json(trace)
        return fitted(locked(accounted_or_fitted(fitted({**files, **moved})), new))

    return forge


def _set(value: Any, path: str, new: Any) -> Any:
    parent, keys = value, [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = new(parent[keys[-1]]) if callable(new) else new
    return value


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
