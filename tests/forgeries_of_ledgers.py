"""What forgers lie about in the ledger, in the form of files, and in all files at once."""

from dataclasses import replace

from forging import (
    BEFORE,
    HONEST,
    OTHERS,
    Forgery,
    another_rule,
    at,
    chained,
    downgraded,
    dropping,
    own_body,
    raised_limit,
    reserve_twice,
    rewritten,
    settle_first,
    text,
    unlinked,
    without_abandoned,
)
from honest_evidence import PRUNING, accounted, files_of, name

from stages.privacy.evidence import CHARGES, LEDGER, LOCK, PLAN, STATEMENT, TRACE

OF_LEDGERS: dict[str, Forgery] = {
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
        chained(lambda entries: own_body(entries, "settle").update(cost=0.001)),
        "audit",
        LEDGER,
        "says that its event costs 0.001",
    ),
    "a path trick in the ledger, chained anew": Forgery(
        chained(
            lambda entries: own_body(entries, "settle")["released"].update({"../../plan.json": "0" * 64})
        ),
        "audit",
        LEDGER,
        "settles the artifact '../../plan.json', which is no plain path",
    ),
    "an event that keeps an accountant busy for ever, chained anew": Forgery(
        chained(lambda entries: own_body(entries, "reserve")["event"].update(count=10**15)),
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
    "pruning figures made up": Forgery(
        lambda files: accounted(
            {**files, PRUNING: at(PRUNING, "chosen.layer", 3)(files)[PRUNING]}, HONEST.plan()
        ),
        "signature",
        PRUNING,
        "is not the file that was signed",
    ),
}
"""Those that only a signature catches are consistent otherwise."""
