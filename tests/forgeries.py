"""Forgeries of evidence by people who have everything but the signing key.

Each starts from honest evidence and recomputes every digest that needs no key, so that only what it lies
about is left to be noticed.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from honest_evidence import CALIBRATION, PROFILE, Run, accounted, files_of, locked, name, relinked
from stored_evidence import Files, replaced

from stages.core.canonical import canonical_json
from stages.privacy.charge import public_choice
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
    written = {file: hashlib.md5(files[file]).hexdigest() for file in STAGE_OF}
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


def _own(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
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
    profile = {**json.loads(files[PROFILE]), "records": "public", "charge": public_choice("profile")}
    del profile["mechanism"], profile["made_by"]
    plan = json.loads(files[PLAN])
    plan["others"]["charges"] = plan["others"]["charges"][1:]
    plan["epsilon"] = read_plan(plan, PLAN).others.epsilon(plan_in(files).event(10), plan_in(files).target)
    files = {**files, PROFILE: canonical_json(profile), PLAN: canonical_json(plan)}
    return accounted_or_fitted(fitted(files))


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


GAUSSIAN = {"class": "GaussianDpEvent", "noise_multiplier": 80.0}
FORGERIES: dict[str, Forgery] = {
    "fewer steps in the trace": Forgery(
        at(TRACE, "steps", lambda steps: steps[:-1]), "audit", TRACE, "holds 9 steps, not the 10 planned ones"
    ),
    "a step twice in the trace": Forgery(
        at(TRACE, "steps", lambda steps: [*steps[:-1], steps[0]]), "audit", TRACE, "each once and in order"
    ),
    "larger sigma claimed in the plan": Forgery(
        at(PLAN, "noise_multiplier", 3.0), "audit", PLAN, "promises epsilon"
    ),
    "larger sigma claimed in the trace": Forgery(
        at(TRACE, "steps.0.noise_multiplier", 3.0),
        "audit",
        TRACE,
        "step 0: noise_multiplier 3.0 is not the planned",
    ),
    "larger sigma claimed everywhere but in the ledger": Forgery(planned_only, "audit", LEDGER, "says event"),
    "q edited in the plan": Forgery(
        at(PLAN, "sampling.rate", 0.05), "audit", PLAN, "sampling.rate 0.05 is not the public configuration"
    ),
    "q edited in plan and configuration": Forgery(
        lambda files: locked(at(PLAN, "sampling.rate", 0.05)(files), replace(HONEST, rate=0.05).plan()),
        "audit",
        TRACE,
        "rate 0.1 is not the planned 0.05",
    ),
    "another expected batch in the trace": Forgery(
        at(TRACE, "steps.9.expected_batch", 800.0), "audit", TRACE, "step 9: expected_batch 800.0"
    ),
    "another clip in the trace": Forgery(at(TRACE, "steps.3.clip", 0.2), "audit", TRACE, "step 3: clip 0.2"),
    "another sampler in the trace": Forgery(
        at(TRACE, "steps.1.sampler", "shuffled"), "audit", TRACE, "step 1: sampler 'shuffled'"
    ),
    "another unit": Forgery(
        with_population(unit="record"),
        "audit",
        PLAN,
        "counts with unit 'record'; the ledger was opened with 'patient'",
    ),
    "a larger max_units": Forgery(
        with_population(max_units=4000), "audit", PLAN, "counts with max_units 4000"
    ),
    "private people declared public": Forgery(
        with_population(public=True),
        "audit",
        PLAN,
        "counts with public True; the ledger was opened with False",
    ),
    "the name of another population": Forgery(
        with_population(name="others"),
        "audit",
        LEDGER,
        "is of population 'patients', and the plan of 'others'",
    ),
    "a name that looks the same": Forgery(
        with_population(name="p\u0430tients"), "audit", LEDGER, "the plan of 'p\\u0430tients'"
    ),
    "an edited relation": Forgery(
        at(PLAN, "relation", "replace_one"),
        "audit",
        PLAN,
        "relation 'replace_one' is not the public configuration",
    ),
    "a raised delta": Forgery(raised_delta, "audit", PLAN, "is not below 1 / max_units"),
    "a raised target": Forgery(
        at(PLAN, "target_epsilon", 9.0), "audit", PLAN, "target_epsilon 9.0 is not the public configuration"
    ),
    "the trace of another run": Forgery(
        other_run, "audit", LEDGER, f"does not hold release '{name('other')}'"
    ),
    "a swapped adapter": Forgery(
        at(TRACE, "adapter", lambda files: {**files, "adapter_model.safetensors": name("other", 64)}),
        "audit",
        "models/adapter/adapter_model.safetensors",
        "is not the file that release",
    ),
    "an adapter file that nobody settled": Forgery(
        at(TRACE, "adapter", lambda files: {**files, "optimizer.safetensors": name("other", 64)}),
        "audit",
        "models/adapter/optimizer.safetensors",
        "is named by the trace and not by release",
    ),
    "a path trick in an artifact's name": Forgery(
        at(TRACE, "adapter", lambda files: {**files, "../../data/plan.json": name("other", 64)}),
        "audit",
        TRACE,
        "names the adapter file '../../data/plan.json', which is no plain file name",
    ),
    "other code in the trace": Forgery(
        at(TRACE, "code", name("other", 64)), "audit", TRACE, "names other code, commit or versions"
    ),
    "other metrics": Forgery(
        at(METRICS, "tuned", {"all": {"accuracy": 1.0}}), "audit", METRICS, "is not the file that release"
    ),
    "less noise in a charge than the plan counted on": Forgery(
        lambda files: accounted_or_fitted(at(PROFILE, "charge.event", GAUSSIAN)(files)),
        "audit",
        PLAN,
        "did not count on the charge of stage 'profile' on train with noise 80.0",
    ),
    "a private choice that charges nothing": Forgery(
        uncharged_profile,
        "audit",
        PROFILE,
        "charges nothing; dvc.lock records that it was made on 'train' records",
    ),
    "other code in a private choice": Forgery(
        at(PROFILE, "made_by.code", name("other", 64)),
        "audit",
        PROFILE,
        "names other code, commit or versions",
    ),
    "a private choice on a larger clip than configured": Forgery(
        at(PROFILE, "mechanism.clip", 9.0),
        "audit",
        PROFILE,
        "was made with other ['clip'] than dvc.lock records",
    ),
    "figures on the training people": Forgery(
        at(METRICS, "charge.split", "train"),
        "audit",
        METRICS,
        "charges split 'train', and evaluate reads heldout",
    ),
    "a charge under another stage's release": Forgery(
        at(PROFILE, "charge.release", name("training")), "audit", CHARGES, "one release has one charge"
    ),
    "a charge that names the wrong sampler": Forgery(
        at(METRICS, "charge.sampler", "poisson"), "audit", CHARGES, "was sampled by 'poisson'"
    ),
    "a renamed class in an event": Forgery(
        at(METRICS, "charge.event.class", "os.system"),
        "audit",
        CHARGES,
        "not a privacy event of a known class",
    ),
    "private selection smuggled in": Forgery(
        at(METRICS, "charge.event", {"class": "RepeatAndSelectDpEvent"}), "audit", CHARGES, "RepeatAndSelect"
    ),
    "a charge dropped from the list": Forgery(
        at(CHARGES, "charges", lambda charges: charges[1:]), "audit", CHARGES, "charges is"
    ),
    "a smaller epsilon in the statement": Forgery(
        at(STATEMENT, "epsilon", 0.5), "audit", STATEMENT, "epsilon is 0.5; the evidence gives"
    ),
    "a smaller total in the statement": Forgery(
        at(STATEMENT, "population_total.epsilon", 1.0), "audit", STATEMENT, "population_total.epsilon is 1.0"
    ),
    "a limit struck from the statement": Forgery(
        at(STATEMENT, "limits", lambda limits: limits[1:]), "audit", STATEMENT, "limits is"
    ),
    "a cross-check that agrees too well": Forgery(
        at(STATEMENT, "cross_checks.RDP", 1.3), "audit", STATEMENT, "cross_checks.RDP is 1.3"
    ),
    "an accountant that decides nothing": Forgery(
        at(PLAN, "accountant", "moments accountant"),
        "audit",
        PLAN,
        "names the accountant 'moments accountant'",
    ),
    "a replayed statement": Forgery(
        lambda files: fitted({**files, STATEMENT: files_of(BEFORE)[STATEMENT]}),
        "audit",
        STATEMENT,
        "charges[0].release is",
    ),
    "a ledger row deleted": Forgery(
        unlinked(lambda entries: entries.pop(3)),
        "audit",
        LEDGER,
        "entry 4 of the ledger of population 'patients' is entry 5",
    ),
    "a ledger entry edited": Forgery(
        unlinked(lambda entries: entries[2]["body"].update(cost=0.0)),
        "audit",
        LEDGER,
        "is not the one that its digest names",
    ),
    "ledger entries in another order": Forgery(
        unlinked(lambda entries: entries.reverse()), "audit", LEDGER, "is broken"
    ),
    "a ledger in another order, chained anew": Forgery(
        chained(settle_first), "audit", LEDGER, "which is not reserved"
    ),
    "a release booked twice, chained anew": Forgery(
        chained(reserve_twice), "audit", LEDGER, f"reserves release {name('training')} a second time"
    ),
    "the release of this pass taken out, chained anew": Forgery(
        chained(dropping("training")), "audit", LEDGER, f"does not hold release '{name('training')}'"
    ),
    "a cost made smaller, chained anew": Forgery(
        chained(lambda entries: _own(entries, "settle").update(cost=0.001)),
        "audit",
        LEDGER,
        "says that its event costs 0.001",
    ),
    "a path trick in the ledger, chained anew": Forgery(
        chained(lambda entries: _own(entries, "settle")["released"].update({"../../plan.json": "0" * 64})),
        "audit",
        LEDGER,
        "settles the artifact '../../plan.json', which is no plain path",
    ),
    "an event that keeps an accountant busy for ever, chained anew": Forgery(
        chained(lambda entries: _own(entries, "reserve")["event"].update(count=10**15)),
        "audit",
        LEDGER,
        "an event of 1000000000000000 repetitions",
    ),
    "a limit raised without its budget, chained anew": Forgery(
        chained(lambda entries: entries[1]["body"]["limit"].update(epsilon=40.0)),
        "audit",
        LEDGER,
        "the budget of epsilon 40",
    ),
    "parallel splits though two rules were used": Forgery(
        chained(another_rule),
        "audit",
        PLAN,
        "adds splits in parallel",
    ),
    "NaN for an epsilon": Forgery(
        text(STATEMENT, '"epsilon": 1.3', '"epsilon": NaN, "was": 1.3'),
        "audit",
        STATEMENT,
        "holds NaN, which is no number",
    ),
    "a number too large to be one": Forgery(
        text(PLAN, '"noise_multiplier": 1.5', '"noise_multiplier": 1e999'),
        "audit",
        PLAN,
        "number that is too large",
    ),
    "a huge integer": Forgery(
        text(PLAN, '"steps": 10', '"steps": 1' + "0" * 400), "audit", PLAN, "holds an integer of 401 digits"
    ),
    "noise that keeps an accountant busy for ever": Forgery(
        at(PLAN, "noise_multiplier", 1e-9), "audit", PLAN, "cannot be priced: a noise multiplier of 1e-09"
    ),
    "steps that keep an accountant busy for ever": Forgery(
        at(PLAN, "sampling.steps", 10**15),
        "audit",
        PLAN,
        "cannot be priced: an event of 1000000000000000 repetitions",
    ),
    "true for a number": Forgery(at(TRACE, "steps.1.step", True), "audit", TRACE, "each once and in order"),
    "a key twice": Forgery(
        text(STATEMENT, '"epsilon": 1.3', '"epsilon": 0.1,\n  "epsilon": 1.3'),
        "audit",
        STATEMENT,
        "holds the key 'epsilon' twice",
    ),
    "a downgrade to version 1": Forgery(downgraded, "audit", PLAN, "is no plan of version 1"),
    "files of two versions": Forgery(
        at(CHARGES, "version", 1), "audit", CHARGES, "has version 1 among evidence"
    ),
    "a file that DVC did not record": Forgery(
        lambda files: {**files, TRACE: at(TRACE, "fingerprint", name("x"))(files)[TRACE]},
        "audit",
        TRACE,
        "is not the file that dvc.lock records",
    ),
    "figures of another adapter": Forgery(
        at(LOCK, "stages.evaluate.deps.0.md5", name("other") + ".dir"),
        "audit",
        LOCK,
        "stage evaluate read another 'models/adapter' than the one recorded",
    ),
    "an earlier release taken out, chained anew": Forgery(
        chained(dropping("before")), "signature", LEDGER, "was cut"
    ),
    "a run that crashed taken out, chained anew": Forgery(without_abandoned, "signature", LEDGER, "was cut"),
    "a limit raised with its budget, chained anew": Forgery(
        chained(raised_limit), "signature", LEDGER, "was rewritten: entry 16 is not the one"
    ),
    "a consistent rewrite of all files with more noise": Forgery(
        rewritten(noise=1.6), "signature", PLAN, "is not the file that was signed"
    ),
    "a consistent rewrite of all files with fewer steps": Forgery(
        rewritten(steps=9), "signature", TRACE, "is not the file that was signed"
    ),
    "a consistent rewrite of all files for other people": Forgery(
        lambda files: files_of(replace(HONEST, population=OTHERS, before=replace(BEFORE, population=OTHERS))),
        "signature",
        LEDGER,
        "is of population 'others'",
    ),
    "evidence made up from nothing": Forgery(
        rewritten(release="made up", before=None, crashed=()),
        "signature",
        STATEMENT,
        "is not the file that was signed",
    ),
    "calibration figures made up": Forgery(
        lambda files: accounted(
            {**files, CALIBRATION: at(CALIBRATION, "chosen.layer", 3)(files)[CALIBRATION]}, HONEST.plan()
        ),
        "signature",
        CALIBRATION,
        "is not the file that was signed",
    ),
}
"""What is lied about, and how it comes out. Those that only a signature catches are consistent otherwise."""
