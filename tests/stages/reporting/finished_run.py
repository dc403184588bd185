"""A finished run in a folder, small and consistent, made by the functions that make real evidence."""

import hashlib
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

from stages.core.files import canonical_json, read_json, sha256, write_json
from stages.core.params import read_params, read_section
from stages.evaluation.accuracy import Accuracy
from stages.evaluation.noised_accuracy import NoisedAccuracy
from stages.privacy.accounting import Target
from stages.privacy.canary_evidence import canaries_json
from stages.privacy.chain import Entry, Split, chain_to_json
from stages.privacy.charge import declared_public, noised_sum_charge, public_choice
from stages.privacy.charges import charges_json
from stages.privacy.clipping_rule import Clipping
from stages.privacy.events import event_from_json
from stages.privacy.noised_sum import NoisedSum
from stages.privacy.one_run_bound import Guesses
from stages.privacy.plan import Plan
from stages.privacy.planning import plan_for
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit
from stages.privacy.reserving import Reservation, Settlement, reserved, settled
from stages.privacy.sampling import Sampling
from stages.privacy.statement import statement_json
from stages.trainable.adapters import attach, save_adapter
from stages.trainable.settings import Trainable
from stages.training.intents import Begun
from stages.training.mechanism import Mechanism
from stages.training.settling import reservation, settlement
from stages.training.trace import trace_json
from stages.vlm.family import load

REPOSITORY = Path(__file__).resolve().parents[3]
POPULATION = Population(name="toy", public=True, max_units=100, unit="image")
TARGET = Target(relation="add_or_remove_one", epsilon=8.0, delta=1e-4)
CHOICES = ("data/profile/profile.json", "data/calibrate/pruning.json")
PICTURES = ("data/profile/layers.png", "data/calibrate/patches.png")
METRICS = "data/evaluate/metrics.json"
CANARIES = "data/canaries/canaries.json"
DAY = "2026-01-01"
MECHANISM = NoisedSum(rate=1.0, rows_per_unit=2, clip=1.0, noise_multiplier=5.0)
SAMPLING = Sampling(steps=4, rate=0.1, expected_batch=10.0)


def write_run(
    root: Path,
    backbone: Path,
    kind: Any = "gradient",
    kinds: tuple[str, ...] = ("digit",),
    *,
    noised: bool = False,
    trainable: str = "lora",
    plan: Plan | None = None,
) -> Plan:
    """Write params.yaml, evidence, backbone and adapter of a run of random weights below ``root``.

    ``noised``: choices and figures were made from noised sums over private units. ``plan``: the plan of the
    run, instead of that of ``kind``.
    """
    (root / "models").mkdir(parents=True)
    for name in ("models/backbone", "models/pretrained"):
        shutil.copytree(backbone, root / name)
    params = (REPOSITORY / "params.yaml").read_text()
    assert params.count("  kind: lora ") == 1
    (root / "params.yaml").write_text(params.replace("  kind: lora ", f"  kind: {trainable} "))
    if plan is None:
        plan = plan_for(kind, TARGET, POPULATION, SAMPLING, clipping=Clipping(1.0), rows_per_unit=1)
    write_json(root / "data/plan.json", plan.to_json())
    _write_choices(root, noised)
    write_adapter(root)
    found = NoisedAccuracy(30.2, 40.7, 5.0) if noised else Accuracy(30, 40)
    accuracy = {name: found.to_json() for name in (*kinds, "all")}
    metrics = {
        "release": f"noised counts: {MECHANISM.words()}" if noised else "exact counts",
        "visual_tokens": 9,
        "zero_shot": accuracy,
        "tuned": accuracy,
        "charge": charge_of("evaluate", "heldout")
        if noised
        else declared_public("evaluate", "heldout", POPULATION, TARGET.relation),
    }
    write_json(root / METRICS, {"version": 2, **metrics})
    write_accounts(root, plan)
    adapter = read_json(root / "data/finetune/trace.json")["adapter"]
    write_json(root / CANARIES, canaries_json(Guesses(200, 50, 31), 25, TARGET.delta, adapter))
    return plan


def charge_of(stage: str, split: Split) -> dict[str, Any]:
    """Return the charge of a stage's noised sum."""
    release = {"profile": "b", "calibrate": "c", "evaluate": "e"}[stage] * 32
    return noised_sum_charge(stage, split, POPULATION, TARGET.relation, release, MECHANISM)


def write_adapter(root: Path) -> None:
    """Attach what learns to the backbone and give the weights that start at zero values too."""
    loaded = load(root / "models/backbone")
    params = root / "params.yaml"
    section = read_section(read_params(params), "trainable", Trainable, params)
    model = attach(loaded.model, section, loaded.family, seed=1)
    for name, weight in model.named_parameters():
        if "lora_B" in name or ".side.up." in name:
            weight.data.normal_(0, 0.3)
    (root / "models/adapter").mkdir()
    with chdir(root):  # PEFT looks for the base model where its name says, from the current directory
        save_adapter(model, Path("models/adapter"), base="models/pretrained", revision=None)


def write_accounts(root: Path, plan: Plan) -> None:
    """Write trace, charges, ledger and statement as finetune and account write them."""
    trace = trace_json(
        plan,
        release="a" * 32,
        fingerprint="f" * 32,
        plan_digest=hashlib.sha256(canonical_json(plan.to_json())).hexdigest(),
        begun=[Begun(step, 1, Mechanism.of(plan).to_json()) for step in range(plan.sampling.steps)],
        adapter={file.name: sha256(file) for file in sorted((root / "models/adapter").iterdir())},
        code="c" * 64,
        commit="unknown",
        versions={"torch": "0"},
    )
    write_json(root / "data/finetune/trace.json", trace)
    outputs = {file: (read_json(root / file), sha256(root / file)) for file in (*CHOICES, METRICS)}
    after = {METRICS: outputs.pop(METRICS)}
    charges = charges_json(plan, trace, before=outputs, after=after)
    write_json(root / "data/account/charges.json", charges)
    ledger = ledger_of(plan, trace, charges)
    write_json(root / "data/account/ledger.json", ledger)
    files = (
        "plan.json",
        "finetune/trace.json",
        "evaluate/metrics.json",
        "account/charges.json",
        "account/ledger.json",
    )
    digests = {f"data/{file}": sha256(root / "data" / file) for file in files}
    write_json(root / "data/account/statement.json", statement_json(plan, charges, ledger, digests))


def ledger_of(plan: Plan, trace: dict[str, Any], charges: dict[str, Any]) -> dict[str, Any]:
    """Return the chain of a population on which this pass was reserved and settled, and no other."""
    limit, name = Limit(epsilon=12.0, delta=plan.delta or TARGET.delta), plan.population.name
    done = {"released": {}, "code": "c", "commit": "unknown", "versions": {}}
    asked = [(reservation(plan, "finetune", trace["release"]), settlement(plan, trace))]
    for charge in charges["charges"]:
        if charge["release"] not in (None, trace["release"]):
            what = {"release": charge["release"], "event": event_from_json(charge["event"])}
            about = {key: charge[key] for key in ("stage", "split", "sampler")}
            asked.append((Reservation(**what, **about), Settlement(**what, **done)))
    entries: list[Entry] = []
    for before, after in asked:
        entries += reserved(plan.population, plan.relation, limit, entries, before, DAY)
        entries += settled(name, entries, after, DAY)
    return chain_to_json(name, entries)


def change(path: Path, **values: Any) -> None:
    """Replace top-level values of a JSON file."""
    write_json(path, {**read_json(path), **values})


def _write_choices(root: Path, noised: bool) -> None:
    exact = {} if noised else {"accuracy": 0.5, "kept": 9}
    layers = [{"layer": n, "log_likelihood": -2.0 + n / 4, **exact} for n in range(3)]
    charge = charge_of("profile", "train") if noised else public_choice("profile")
    profile = {"version": 2, "layers": layers, "chosen": 2, "charge": charge}
    write_json(root / "data/profile/profile.json", profile)
    budget = {"layer": 2, "dominant": 6, "contextual": 3}
    found = {"kept": 9, "accuracy": 0.5, "fidelity": 0.98, **budget}
    whole = {"kept": 64, "accuracy": 0.51}
    charge = charge_of("calibrate", "train") if noised else public_choice("calibrate")
    (root / "data/calibrate").mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:  # pictures of public records, as a real pass drew them
        shutil.copyfile(REPOSITORY / picture, root / picture)
    pruning = {"version": 2, "all": whole, "candidates": [found], "chosen": budget, "charge": charge}
    write_json(root / "data/calibrate/pruning.json", pruning)
