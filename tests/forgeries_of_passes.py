"""What forgers lie about in plan, trace, outputs, charges and statement."""

from dataclasses import replace

from forging import (
    BEFORE,
    HONEST,
    Forgery,
    accounted_or_fitted,
    at,
    configured,
    exact_figures,
    fitted,
    other_run,
    planned_only,
    raised_delta,
    uncharged_profile,
    with_population,
)
from honest_evidence import PROFILE, canaries_of, files_of, locked, name

from stages.core.canonical import canonical_json
from stages.privacy.evidence import CANARIES, CHARGES, LEDGER, LOCK, METRICS, PLAN, STATEMENT, TRACE

GAUSSIAN = {"class": "GaussianDpEvent", "noise_multiplier": 80.0}
OF_PASSES: dict[str, Forgery] = {
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
    "exact figures on a random part of private people": Forgery(
        exact_figures,
        "audit",
        METRICS,
        "charges nothing for exact figures on a random part of people who are not public",
    ),
    "a precision that nothing prices": Forgery(
        configured("finetune", "model", precision="bfloat16"),
        "audit",
        LOCK,
        "records that finetune computed in 'bfloat16'",
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
    "a smaller bound than the guesses about canaries give": Forgery(
        at(CANARIES, "lower_bound", 0.0), "audit", CANARIES, "its counts give"
    ),
    "a larger ceiling than so many guesses have": Forgery(
        at(CANARIES, "ceiling", 6.0), "audit", CANARIES, "ceiling is 6.0"
    ),
    "fewer guesses about canaries than were fixed beforehand": Forgery(
        at(CANARIES, "guessed_out", 10), "audit", CANARIES, "dvc.lock records 20 and 20 about 100"
    ),
    "impossible guesses": Forgery(at(CANARIES, "right", 41), "audit", CANARIES, "41 right of 40"),
    "a bound at a kinder delta": Forgery(at(CANARIES, "delta", 1e-2), "audit", CANARIES, "the plan's is"),
    "canaries of another adapter": Forgery(
        at(CANARIES, "adapter", {"adapter_model.safetensors": name("other", 64)}),
        "audit",
        CANARIES,
        "is about another adapter",
    ),
    "a claim that canaries contradict": Forgery(
        lambda files: fitted({**files, CANARIES: canonical_json(canaries_of(HONEST, right=40))}),
        "audit",
        CANARIES,
        "contradicts the claim",
    ),
    "fewer right guesses, and the bound that they give": Forgery(
        lambda files: fitted({**files, CANARIES: canonical_json(canaries_of(HONEST, right=20))}),
        "signature",
        CANARIES,
        "is not the file that was signed",
    ),
    "a replayed statement": Forgery(
        lambda files: fitted({**files, STATEMENT: files_of(BEFORE)[STATEMENT]}),
        "audit",
        STATEMENT,
        "charges[0].release is",
    ),
}
"""Each contradicts something else in the evidence, but for the one that only a signature catches."""
