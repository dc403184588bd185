"""What canaries cost in accuracy, and what they find, in the default run: none, some, many.

``python -m benchmarks.canary_cost --json FILE`` after ``dvc repro``. The non-private row says what the attack
finds where nothing hides a unit.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arms import Settings, calibrated_rules, load_backbone, score, trained
from benchmarks.default_run import percent, spread
from benchmarks.machine import about
from benchmarks.world import records_of_people
from stages.core.files import write_json
from stages.core.params import read_params, read_section
from stages.core.speed import Speed
from stages.evaluation.losses import fall_by_unit, losses_of_rows
from stages.ledger.population_key import PopulationKey
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.one_run_bound import Guesses, ceiling, epsilon_lower_bound, guess
from stages.records.canaries import is_planted, planned_canaries
from stages.records.encoded import EncodedSet
from stages.records.token_rows import TokenRows
from stages.vlm.encoder import encode_set
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule

ARMS = (("gradient", 0), ("gradient", 200), ("gradient", 1000), ("nonprivate", 200))
"""Estimator and canaries."""


def main() -> None:
    """Train every arm, ask about canaries, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=3)
    given = options.parse_args()
    settings = Settings.read()
    planted = read_section(read_params(), "canaries", CanarySettings)
    loaded, speed = load_backbone(settings)
    run = Run(settings, loaded, speed, calibrated_rules()[1])
    rows = []
    for kind, count in ARMS:
        found = [run.once(kind, replace(planted, count=count, seed=seed)) for seed in range(given.seeds)]
        rows.append({"estimator": kind, "canaries": count, **_summary(found)})
        print(rows[-1], file=sys.stderr, flush=True)
    result = {"about": about(), "seeds": given.seeds, "guessed": planted.guessed, "rows": rows}
    write_json(given.json, result)
    print(render(result))


class Run:
    """The default run with other canaries, as often as asked."""

    def __init__(self, settings: Settings, loaded: Loaded, speed: Speed, rule: Rule) -> None:
        """Read the records of ``dvc repro``; canaries that it planted are left out."""
        self.settings, self.loaded, self.speed, self.rule = settings, loaded, speed, rule
        self.public = records_of_people("public")
        self.train = encode_set(loaded, records_of_people("train"), rule)
        self.heldout = encode_set(loaded, records_of_people("heldout"), rule)

    def once(self, kind: str, planted: CanarySettings) -> tuple[dict[str, float], Guesses]:
        """Return the accuracy of one run by kind of question, and what was guessed of its canaries."""
        canaries = planned_canaries(planted, self.public)
        key = PopulationKey(np.random.default_rng(planted.seed).bytes(32))
        joined = [row for row in canaries if is_planted(row.unit, key)]
        arm, loaded = self.settings.as_kind(kind), self.loaded
        encoded = together(self.train, encode_set(loaded, joined, self.rule)) if joined else self.train
        learner, _ = trained(arm, arm.plan(), self.speed, encoded, planted.seed)
        accuracy = score(learner.model, learner.family, self.heldout, self.speed)
        asked, each = encode_set(loaded, canaries, self.rule), planted.guesses_of_each()
        before_R, after_R = (
            losses_of_rows("canaries", model, loaded.family, asked, self.speed.micro_batch)
            for model in (loaded.model, learner.model)
        )
        fell_M = fall_by_unit(before_R, after_R, asked)
        units, trained_on = dict.fromkeys(row.unit for row in canaries), {row.unit for row in joined}
        is_in_M = np.array([unit in trained_on for unit in units], dtype=bool)
        return accuracy, guess(fell_M, is_in_M, each, each)


def together(people: EncodedSet, canaries: EncodedSet) -> EncodedSet:
    """Return both sets as one, whose units and images are counted on."""
    units, images = len(people.rows_by_unit()), len(people.features)
    kinds = (*people.kinds, *canaries.kinds)
    more = [
        replace(
            row,
            unit=row.unit + units,
            images=tuple(image + images for image in row.images),
            kind=row.kind + len(people.kinds),
        )
        for row in canaries.rows
    ]
    features = people.features.followed_by(canaries.features)
    return replace(people, features=features, rows=TokenRows.of([*people.rows, *more]), kinds=kinds)


def _summary(found: list[tuple[dict[str, float], Guesses]]) -> dict[str, Any]:
    guesses, delta = [one for _, one in found], Settings.read().target.delta
    return {
        "accuracy": {kind: spread([accuracy[kind] for accuracy, _ in found]) for kind in found[0][0]},
        "right": [one.right for one in guesses],
        "made": guesses[0].made,
        "lower_bound": spread([epsilon_lower_bound(one, delta) for one in guesses]),
        "ceiling": ceiling(guesses[0].made, guesses[0].canaries, delta),
    }


def render(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    kinds = list(result["rows"][0]["accuracy"])
    lines = [
        f"{result['about']}; {result['seeds']} seeds, mean (least-most)",
        "",
        "| training | canaries | " + " | ".join(f"{kind} %" for kind in kinds) + " | right guesses "
        "| lower bound | could show at most |",
        "|---" * (len(kinds) + 5) + "|",
    ]
    for row in result["rows"]:
        name = {"gradient": "Dual-Priv", "nonprivate": "non-private"}[row["estimator"]]
        bound = row["lower_bound"]
        right = ", ".join(map(str, row["right"])) + f" of {row['made']}"
        lines.append(
            f"| {name} | {row['canaries']} | "
            + " | ".join(percent(row["accuracy"][kind]) for kind in kinds)
            + f" | {right} | {bound['mean']:.2f} ({bound['minimum']:.2f}-{bound['maximum']:.2f}) "
            f"| {row['ceiling']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
