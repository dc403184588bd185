"""What an honest operator commits after a small run on private people, made without training anything.

Every document comes from the functions that the stages use, so that a forger may use them too.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import dp_accounting
from stored_evidence import Files

from stages.core.canonical import canonical_json
from stages.privacy.accounting import ACCOUNTANT, Composition, Relation
from stages.privacy.canary_evidence import canaries_json
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.chain import Entry, chain_to_json
from stages.privacy.charge import noised_sum_charge, public_choice
from stages.privacy.charges import charges_json
from stages.privacy.directions import Directions, Distribution
from stages.privacy.evidence import (
    CANARIES,
    CHARGES,
    LEDGER,
    LOCK,
    METRICS,
    PLAN,
    PROFILE,
    PRUNING,
    STAGE_OF,
    STATEMENT,
    TRACE,
)
from stages.privacy.noised_sum import NoisedSum
from stages.privacy.one_run_bound import Guesses
from stages.privacy.plan import VERSION, Beside, Others, Plan
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit
from stages.privacy.reserving import Reservation, Settlement, abandoned, reserved, settled, split_recorded
from stages.privacy.sampling import Sampling
from stages.privacy.split_rule import keyed_hash_rule
from stages.privacy.statement import statement_json
from stages.training.trace import VERSION as TRACE_VERSION

DAY = "2026-11-22"
VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "dp-accounting": "0.6.0"}
DEPS = {
    "calibrate": [PROFILE],
    "finetune": [PLAN],
    "evaluate": ["models/adapter"],
    "canaries": ["models/adapter", PLAN],
    "account": [PLAN, TRACE, PROFILE, PRUNING, METRICS],
}

PLANTED = CanarySettings(count=100, rows_per_unit=2, words=4, guessed=0.4, seed=0)


def name(word: str, digits: int = 32) -> str:
    """Return hex digits that a word stands for."""
    return hashlib.sha256(word.encode()).hexdigest()[:digits]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One pass: profiling and evaluation of private units by one noised sum each, and training between."""

    population: Population = Population(name="patients", public=False, max_units=5000, unit="patient")
    relation: Relation = "add_or_remove_one"
    target: float = 6.0
    delta: float = 1e-5
    limit: Limit = Limit(epsilon=12.0, delta=1e-5)
    composition: Composition = "parallel"
    steps: int = 10
    rate: float = 0.1
    noise: float = 1.5
    profile_noise: float = 20.0
    heldout_noise: float = 8.0
    release: str = "training"
    """What the ids of the pass's releases stand for."""
    before: "Run | None" = None
    """The pass before this one."""
    crashed: tuple[str, ...] = ()
    """Trainings between the two that were abandoned."""
    rules: tuple[str, ...] = (keyed_hash_rule("patient", 0.2),)
    directions: Directions | None = None
    """Those of zeroth order; None: gradients."""
    distribution: Distribution = "gaussian"

    def plan(self) -> Plan:
        """Return the plan of the pass."""
        others = Others(
            charges=(
                Beside(stage="profile", split="train", rate=1.0, noise_multiplier=self.profile_noise),
                Beside(stage="evaluate", split="heldout", rate=1.0, noise_multiplier=self.heldout_noise),
            ),
            composition=self.composition,
        )
        unpriced = Plan(
            version=VERSION,
            population=self.population,
            relation=self.relation,
            target_epsilon=self.target,
            delta=self.delta,
            mechanism=self.distribution,
            estimator="gradient" if self.directions is None else "zeroth_order",
            directions=self.directions,
            sampler="poisson",
            sampling=Sampling(steps=self.steps, rate=self.rate, expected_batch=400.0),
            rows_per_unit=2,
            clip=0.1,
            clip_rule="flat",
            clip_groups="whole",
            noise_multiplier=self.noise,
            others=others,
            accountant=ACCOUNTANT,
            epsilon=0.0,
        )
        return replace(unpriced, epsilon=others.epsilon(unpriced.event(self.steps), unpriced.target))

    def mechanism(self, stage: str) -> NoisedSum:
        """Return the noised sum of a stage."""
        noise = {"profile": self.profile_noise, "evaluate": self.heldout_noise}[stage]
        return NoisedSum(rate=1.0, rows_per_unit=2, clip=0.5, noise_multiplier=noise)

    def noised(self, stage: str, split: Any) -> dict[str, Any]:
        """Return what the output of a stage says of its noised sum."""
        mechanism, release = self.mechanism(stage), name(f"{self.release} {stage}")
        return {
            "version": 2,
            "charge": noised_sum_charge(stage, split, self.population, self.relation, release, mechanism),
            "mechanism": asdict(mechanism),
            "made_by": {"code": name("code", 64), "commit": name("commit", 40), "versions": VERSIONS},
        }


def trace_of(run: Run, plan: Plan) -> dict[str, Any]:
    """Return the trace of the pass."""
    return {
        "version": TRACE_VERSION,
        "release": name(run.release),
        "fingerprint": name(f"{run.release} inputs"),
        "population": plan.population.name,
        "plan": hashlib.sha256(canonical_json(plan.to_json())).hexdigest(),
        "mechanism": plan.mechanism,
        "steps": [
            {
                "step": step,
                "estimator": plan.estimator,
                "directions": plan.directions and asdict(plan.directions),
                "noise": plan.mechanism,
                "sampler": plan.sampler,
                "rate": plan.sampling.rate,
                "expected_batch": plan.sampling.expected_batch,
                "rows_per_unit": plan.rows_per_unit,
                "clip": plan.clip,
                "clip_rule": plan.clip_rule,
                "clip_groups": plan.clip_groups,
                "noise_multiplier": plan.noise_multiplier,
            }
            for step in range(plan.sampling.steps)
        ],
        "adapter": {
            "adapter_config.json": name("config", 64),
            "adapter_model.safetensors": name(f"{run.release} weights", 64),
        },
        "code": name("code", 64),
        "commit": name("commit", 40),
        "versions": VERSIONS,
    }


def entries_of(run: Run) -> list[Entry]:
    """Return the ledger after the pass, that of the passes before included."""
    entries = [] if run.before is None else entries_of(run.before)
    made, people = made_by(run), run.population
    training = run.plan().event(run.steps)

    def book(stage: str, split: Any, sampler: Any, event: Any, release: str) -> None:
        asked = Reservation(release=release, stage=stage, split=split, sampler=sampler, event=event)
        entries.extend(reserved(people, run.relation, run.limit, entries, asked, DAY))

    def settle(stage: str, event: Any, release: str, files: dict[str, str]) -> None:
        done = Settlement(
            release=release,
            event=event,
            released=files,
            code=name("code", 64),
            commit=name("commit", 40),
            versions=VERSIONS,
        )
        entries.extend(settled(people.name, entries, done, DAY))

    for rule in run.rules:
        entries.extend(split_recorded(people.name, entries, rule, DAY))
    for crashed in run.crashed:
        book("finetune", "train", "poisson", training, name(crashed))
        entries.extend(abandoned(people.name, entries, name(crashed), training, "given up", DAY))
    for stage, split, file, noise in (
        ("profile", "train", PROFILE, run.profile_noise),
        ("evaluate", "heldout", METRICS, run.heldout_noise),
    ):
        event, release = dp_accounting.GaussianDpEvent(noise), name(f"{run.release} {stage}")
        book(stage, split, "none", event, release)
        settle(stage, event, release, {file: _sha256(made[file])})
    adapter = json.loads(made[TRACE])["adapter"]
    book("finetune", "train", "poisson", training, name(run.release))
    settle(
        "finetune", training, name(run.release), {f"models/adapter/{file}": adapter[file] for file in adapter}
    )
    return entries


def made_by(run: Run) -> Files:
    """Return what the stages before account wrote."""
    plan = run.plan()
    values: dict[str, Any] = {
        PROFILE: {**run.noised("profile", "train"), "records": "train", "chosen": 1, "layers": []},
        PRUNING: {
            "version": 2,
            "records": "public",
            "chosen": {"layer": 1},
            "candidates": [],
            "charge": public_choice("calibrate"),
        },
        PLAN: plan.to_json(),
        TRACE: trace_of(run, plan),
        METRICS: {**run.noised("evaluate", "heldout"), "release": "noised counts", "tuned": {}},
        CANARIES: canaries_of(run, right=30),
    }
    return {file: canonical_json(value) for file, value in values.items()}


def canaries_of(run: Run, right: int) -> dict[str, Any]:
    """Return what so many right guesses about canaries show."""
    each, adapter = PLANTED.guesses_of_each(), trace_of(run, run.plan())["adapter"]
    return canaries_json(Guesses(PLANTED.count, 2 * each, right), each, run.delta, adapter)


def files_of(run: Run) -> Files:
    """Return all evidence of the pass, each file fitting the others."""
    chain = chain_to_json(run.population.name, entries_of(run))
    return accounted({**made_by(run), LEDGER: canonical_json(chain)}, run.plan())


def accounted(files: Files, plan: Plan) -> Files:
    """Return files with charges, statement and dvc.lock made anew from the others, as account would."""
    values = {file: json.loads(content) for file, content in files.items() if file.endswith(".json")}
    outputs = {file: (values[file], _sha256(files[file])) for file in (PROFILE, PRUNING, METRICS)}
    after = {METRICS: outputs.pop(METRICS)}
    charges = charges_json(plan, values[TRACE], before=outputs, after=after)
    files = {**files, CHARGES: canonical_json(charges)}
    committed = {file: _sha256(files[file]) for file in (PLAN, TRACE, METRICS, CHARGES, LEDGER)}
    statement = statement_json(plan, charges, values[LEDGER], committed)
    return locked({**files, STATEMENT: canonical_json(statement)}, plan)


def locked(files: Files, plan: Plan) -> Files:
    """Return files with a dvc.lock that records them and the parameters of ``plan``."""
    params = {
        "estimator": {
            "kind": plan.estimator,
            "clip": plan.clip,
            "clip_rule": plan.clip_rule,
            "clip_groups": plan.clip_groups,
            "rows_per_unit": plan.rows_per_unit,
            "zeroth_order": {"directions": 3, "perturbation": 1e-3, "noise": plan.mechanism},
        },
        "seed": {"public": 3, "start": 7},
        "population": plan.to_json()["population"],
        "privacy": {"relation": plan.relation, "epsilon": plan.target_epsilon, "delta": plan.delta},
        "sampling": plan.to_json()["sampling"],
    }
    lock: dict[str, Any] = {"schema": "2.0", "stages": {}}
    for stage in dict.fromkeys(STAGE_OF.values()):
        outs = [
            {"path": file, "md5": _md5(files[file])}
            for file in STAGE_OF
            if STAGE_OF[file] == stage and file in files
        ]
        if stage == "finetune":
            outs.append({"path": "models/adapter", "md5": name("adapter") + ".dir"})
        written = {out["path"]: out["md5"] for one in lock["stages"].values() for out in one["outs"]}
        deps = [{"path": path, "md5": written[path]} for path in DEPS.get(stage, [])]
        lock["stages"][stage] = {"deps": deps, "outs": outs, "params": {"params.yaml": {}}}
    lock["stages"]["plan"]["params"]["params.yaml"] = params
    made = {file: json.loads(files[file]) for file in (PROFILE, METRICS)}
    for stage, section in {
        "profile": {"on": "train", "private": made[PROFILE].get("mechanism")},
        "calibrate": {"on": "public", "private": None},
        "evaluate": {"release": "private", "private": made[METRICS].get("mechanism")},
    }.items():
        lock["stages"][stage]["params"]["params.yaml"] = {stage: section}
    lock["stages"]["evaluate"]["params"]["params.yaml"]["data"] = {"private": {"split": None}}
    made_up = {"path": "data/records/canaries", "md5": name("canaries") + ".dir"}
    lock["stages"]["ingest"] = {"deps": [], "outs": [made_up]}
    for stage in ("ingest", "finetune", "canaries"):
        lock["stages"][stage].setdefault("params", {})["params.yaml"] = {"canaries": asdict(PLANTED)}
    lock["stages"]["finetune"]["params"]["params.yaml"]["model"] = {"precision": "float32"}
    lock["stages"]["canaries"]["deps"].append(dict(made_up))
    return {**files, LOCK: canonical_json(lock)}


def relinked(files: Files, edit: Callable[[list[dict[str, Any]]], Any]) -> Files:
    """Return files whose ledger is edited entry by entry and then chained anew, every digest made to fit."""
    ledger = json.loads(files[LEDGER])
    edit(ledger["entries"])
    previous = "0" * 64
    for number, entry in enumerate(ledger["entries"], 1):
        entry.update(sequence=number, previous=previous)
        entry.pop("digest", None)
        previous = entry["digest"] = _sha256(canonical_json(entry))
    return {**files, LEDGER: canonical_json(ledger)}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()
