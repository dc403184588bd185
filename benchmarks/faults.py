"""Faults planted in the engine, and who catches each; nobody may alarm on the sound system.

``python -m benchmarks.faults --json FILE`` ends with 1 when a fault is missed or a sound system is accused.
Catchers are the white-box auditor, tests of noise scale and of inclusion, preflight, and the audit command.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks import faulty_engine as engine
from benchmarks import faulty_evidence as evidence
from benchmarks import faulty_models as models
from benchmarks.catchers import Look, audited, audited_splits, included, noised
from benchmarks.machine import about
from benchmarks.white_box import DELTA, EACH, Trial, audit_run
from stages.core.entry import quiet_accountants
from stages.core.files import write_json
from stages.privacy.one_run_bound import ceiling

Catcher = Literal["auditor", "noise and inclusion tests", "preflight", "audit command"]
REPETITIONS = 20
AUDITED = (
    Trial(epsilon=1.0),
    Trial(),
    Trial(rows=4),
    Trial(images_only=True),
    Trial(prune="block"),
    Trial(prune="magnitude"),
    Trial(prune="random"),
    Trial(steps=4, rate=0.5),
    Trial(steps=4, prune="accumulated"),
    Trial(directions=2048),
)
"""Runs of the sound engine that are audited, with ``REPETITIONS`` keys each."""
OVER = "and 2 is claimed"


@dataclass(frozen=True)
class Fault:
    """One fault, who is meant to catch it, and the words that show that it was this fault."""

    name: str
    catcher: Catcher
    look: Look
    words: str
    inject: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)
    """Plants it in the engine; what only looks at a faulty model or faulty evidence plants nothing."""

    def said(self, seed: int = 0) -> str | None:
        """Return what the catcher says with the fault planted."""
        with self.inject():
            return self.look(seed)

    def is_caught(self, said: str | None) -> bool:
        """Tell whether the catcher spoke of this fault."""
        return said is not None and re.search(self.words, said) is not None


_TESTS: Catcher = "noise and inclusion tests"
FAULTS = (
    Fault("no noise", "auditor", audited(Trial()), OVER, engine.no_noise),
    Fault(
        "noise from a known seed", "auditor", audited(Trial(steps=2)), OVER, engine.noise_from_a_known_seed
    ),
    Fault("clipping after the mean", "auditor", audited(Trial()), OVER, engine.clipping_after_the_mean),
    Fault("per-row clip, then sum", "auditor", audited(Trial(rows=4)), OVER, engine.rows_clipped_then_summed),
    Fault(
        "dimension 0 taken as the unit, four images",
        "auditor",
        audited(Trial(images_only=True)),
        OVER,
        engine.first_dimension_taken_as_the_unit,
    ),
    Fault(
        "slopes clipped one by one",
        "auditor",
        audited(Trial(directions=2048)),
        OVER,
        engine.slopes_clipped_one_by_one,
    ),
    Fault("a unit in two splits", "auditor", audited_splits, "have no part", engine.a_unit_in_two_splits),
    Fault("half-scale noise", _TESTS, noised, r"first tensor at step 0 is 0\.50", engine.half_scale_noise),
    Fault("shuffling for Poisson", _TESTS, included, "batch sizes", engine.shuffling_for_poisson),
    Fault(
        "the same sampling on every rank",
        _TESTS,
        included,
        r"[1-9]\d* sampled units twice",
        engine.the_same_sampling_on_every_rank,
    ),
    Fault(
        "noise on only some tensors", _TESTS, noised, r"second.* is 0\.00", engine.noise_on_some_tensors_only
    ),
    Fault(
        "reused counters",
        _TESTS,
        noised,
        "first tensor at step 0 and the first tensor at step 1",
        engine.counters_that_start_again,
    ),
    Fault(
        "one stream for all tensors",
        _TESTS,
        noised,
        "first tensor at step 0 and the second tensor at step 0",
        engine.one_stream_for_all_tensors,
    ),
    Fault(
        "a trainable weight outside the norm",
        "preflight",
        models.weight_outside_the_norm,
        "outside its layer's forward",
    ),
    Fault("loss averaged over the batch", "preflight", models.averaged_loss, "gradients are off by"),
    Fault("dropout that differs between passes", "preflight", models.dropout, "drops at random"),
    Fault("the same, hidden in the loss", "preflight", models.hidden_dropout, "off by|changes by"),
    Fault("steps that are not in the trace", "audit command", evidence.fewer_steps, "planned ones"),
    Fault("another sigma than planned", "audit command", evidence.another_sigma, "noise_multiplier 0.5 is"),
)
SOUND: dict[Catcher, tuple[Sequence[Look], int]] = {
    "auditor": ((audited_splits,), REPETITIONS),  # beside the runs in AUDITED, whose bounds are shown
    _TESTS: ((noised, included), REPETITIONS),
    "preflight": ((models.sound,), REPETITIONS),
    "audit command": ((evidence.sound,), 1),  # nothing in it is drawn
}
"""What looks at the sound system, and with how many keys each."""


def main() -> int:
    """Plant every fault, look at the sound system, print and write the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    quiet_accountants()
    faults = [
        {"fault": fault.name, "caught_by": fault.catcher, "said": said, "is_caught": fault.is_caught(said)}
        for fault in FAULTS
        for said in [fault.said()]
    ]
    bounds = [bounds_of(trial) for trial in AUDITED]
    with engine.half_scale_noise():
        bounds.append({"fault": "half-scale noise", **bounds_of(Trial())})
    sound = [{"catcher": catcher, **repeated(catcher)} for catcher in SOUND]
    found = {"about": about(), "faults": faults, "sound": sound, "bounds": bounds}
    write_json(given.json, found)
    print(render(found))
    accused = any(one["alarms"] for one in sound) or any(
        one["bounds"][-1] > one["epsilon"] for one in bounds if "fault" not in one
    )
    return int(accused or not all(one["is_caught"] for one in faults))


def repeated(catcher: Catcher) -> dict[str, Any]:
    """Return how often a catcher looked at the sound system, and what it said against it."""
    looks, keys = SOUND[catcher]
    said = [look(seed) for look in looks for seed in range(keys)]
    return {
        "looks": len(looks),
        "repetitions": keys,
        "alarms": [what for what in said if what is not None],
    }


def bounds_of(trial: Trial) -> dict[str, Any]:
    """Return the lower bounds that the auditor finds, by key, lowest first."""
    bounds = sorted(audit_run(trial, seed).bound for seed in range(REPETITIONS))
    most = ceiling(2 * trial.guesses, trial.canaries, DELTA, EACH)
    return {**asdict(trial), "canaries": trial.canaries, "bounds": bounds, "ceiling": most}


def render(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [found["about"], "", "| fault | caught by | it said |", "|---|---|---|"]
    for one in found["faults"]:
        said = one["said"] if one["is_caught"] else f"NOT CAUGHT: {one['said']}"
        lines.append(f"| {one['fault']} | {one['caught_by']} | {said} |")
    lines += ["", "| on the sound system | looks | keys each | alarms |", "|---|---|---|---|"]
    lines += [
        f"| {one['catcher']} | {one['looks']} | {one['repetitions']} | {'; '.join(one['alarms']) or 'none'} |"
        for one in found["sound"]
    ]
    lines += [
        "",
        "| engine | claimed epsilon | steps, rate | rows a unit | weights updated | canaries | lower bound "
        "| of the claim | most that the guesses could show |",
        "|---" * 9 + "|",
    ]
    for one in found["bounds"]:
        bounds = one["bounds"]
        middle = bounds[len(bounds) // 2]
        lines.append(
            f"| {one.get('fault', 'sound')} | {one['epsilon']:g} | {one['steps']}, {one['rate']:g} "
            f"| {one['rows']} | {one['prune']} | {one['canaries']:,} "
            f"| {middle:.2f} ({bounds[0]:.2f}-{bounds[-1]:.2f}, {len(bounds)} keys) "
            f"| {middle / one['epsilon']:.2f} | {one['ceiling']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
