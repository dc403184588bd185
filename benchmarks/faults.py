"""Faults planted in the engine, and who catches each; nobody may alarm on the sound system.

``python -m benchmarks.faults --json FILE``. Catchers are the white-box auditor, tests of noise scale and of
inclusion, preflight, and the audit command.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks import faulty_engine as engine
from benchmarks import faulty_evidence as evidence
from benchmarks import faulty_models as models
from benchmarks.catchers import audited, audited_splits, included, noised
from benchmarks.machine import about
from benchmarks.white_box import DELTA, GUESSES, Trial, audit_run
from stages.core.entry import quiet_accountants
from stages.core.files import write_json
from stages.privacy.one_run_bound import ceiling

Catcher = Literal["auditor", "noise and inclusion tests", "preflight", "audit command"]
REPETITIONS = 20
AUDITED = (
    Trial(epsilon=1.0),
    Trial(),
    Trial(rows=4),
    Trial(prune="block"),
    Trial(prune="magnitude"),
    Trial(prune="random"),
    Trial(steps=4, rate=0.5),
)
"""Runs of the sound engine whose lower bounds are shown; five keys each."""
KEYS = 5


@dataclass(frozen=True)
class Fault:
    """One fault, and what is expected to catch it: returns what it says, or None where it says nothing."""

    name: str
    catcher: Catcher
    catch: Callable[[int], str | None]
    inject: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)

    def caught(self, seed: int = 0) -> str | None:
        """Return what the catcher says with the fault planted."""
        with self.inject():
            return self.catch(seed)


FAULTS = (
    Fault("no noise", "auditor", audited(Trial()), engine.no_noise),
    Fault("noise from a known seed", "auditor", audited(Trial(steps=2)), engine.noise_from_a_known_seed),
    Fault("clipping after the mean", "auditor", audited(Trial()), engine.clipping_after_the_mean),
    Fault("per-row clip, then sum", "auditor", audited(Trial(rows=4)), engine.rows_clipped_then_summed),
    Fault(
        "dimension 0 taken as the unit, four images",
        "auditor",
        audited(Trial(images_only=True)),
        engine.first_dimension_taken_as_the_unit,
    ),
    Fault("a unit in two splits", "auditor", audited_splits, engine.a_unit_in_two_splits),
    Fault("half-scale noise", "noise and inclusion tests", noised, engine.half_scale_noise),
    Fault("shuffling for Poisson", "noise and inclusion tests", included, engine.shuffling_for_poisson),
    Fault(
        "the same sampling on every rank",
        "noise and inclusion tests",
        included,
        engine.the_same_sample_on_every_rank,
    ),
    Fault(
        "noise on only some tensors", "noise and inclusion tests", noised, engine.noise_on_some_tensors_only
    ),
    Fault("reused counters", "noise and inclusion tests", noised, engine.counters_that_start_again),
    Fault(
        "one stream for all tensors", "noise and inclusion tests", noised, engine.one_stream_for_all_tensors
    ),
    Fault("a trainable weight outside the norm", "preflight", models.weight_outside_the_norm),
    Fault("loss averaged over the batch", "preflight", models.averaged_loss),
    Fault("dropout that differs between passes", "preflight", models.dropout),
    Fault("steps that are not in the trace", "audit command", evidence.steps_left_out),
    Fault("another sigma than planned", "audit command", evidence.another_sigma),
)
SOUND: dict[Catcher, Sequence[Callable[[int], str | None]]] = {
    "auditor": (
        *(audited(trial) for trial in AUDITED),
        audited(Trial(images_only=True)),
        audited_splits,
    ),
    "noise and inclusion tests": (noised, included),
    "preflight": (models.sound,),
    "audit command": (evidence.sound,),
}
"""What looks at the sound system: each in turn, ``REPETITIONS`` times in all for a catcher."""


def main() -> None:
    """Plant every fault, look at the sound system, print and write the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    quiet_accountants()
    faults = [
        {"fault": fault.name, "caught_by": fault.catcher, "it_said": fault.caught()} for fault in FAULTS
    ]
    sound = [{"catcher": catcher, **repeated(catcher)} for catcher in SOUND]
    bounds = [bounds_of(trial) for trial in AUDITED]
    found = {"about": about(), "faults": faults, "sound": sound, "bounds": bounds}
    write_json(given.json, found)
    print(render(found))


def repeated(catcher: Catcher) -> dict[str, Any]:
    """Return how often a catcher looked at the sound system, and what it said against it."""
    looks = SOUND[catcher]
    said = [looks[seed % len(looks)](seed) for seed in range(REPETITIONS)]
    return {"repetitions": REPETITIONS, "alarms": [what for what in said if what is not None]}


def bounds_of(trial: Trial) -> dict[str, Any]:
    """Return the lower bounds that the auditor finds on the sound engine, by key."""
    bounds = sorted(audit_run(trial, seed).bound for seed in range(KEYS))
    most = ceiling(2 * GUESSES, trial.canaries, DELTA)
    return {**asdict(trial), "canaries": trial.canaries, "bounds": bounds, "ceiling": most}


def render(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [found["about"], "", "| fault | caught by | it said |", "|---|---|---|"]
    lines += [
        f"| {one['fault']} | {one['caught_by']} | {one['it_said'] or 'NOTHING'} |" for one in found["faults"]
    ]
    lines += ["", "| on the sound system | repetitions | alarms |", "|---|---|---|"]
    lines += [
        f"| {one['catcher']} | {one['repetitions']} | {'; '.join(one['alarms']) or 'none'} |"
        for one in found["sound"]
    ]
    lines += [
        "",
        "| sound engine: claimed epsilon | steps, rate | rows a unit | update rule | lower bound, 95 % "
        "| of the claim | most that the guesses could show |",
        "|---" * 7 + "|",
    ]
    for one in found["bounds"]:
        least, middle, most = one["bounds"][0], one["bounds"][len(one["bounds"]) // 2], one["bounds"][-1]
        lines.append(
            f"| {one['epsilon']:g} | {one['steps']}, {one['rate']:g} | {one['rows']} | {one['prune']} "
            f"| {middle:.2f} ({least:.2f}-{most:.2f}) | {middle / one['epsilon']:.2f} "
            f"| {one['ceiling']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
