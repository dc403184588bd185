"""What attacks find in tuned models of the demonstration: method by epsilon, beside what is claimed.

``python -m benchmarks.evidence --json FILE`` after ``dvc repro``; ``--quick`` for less of it. The population
is declared public, so that figures on its members may be shown: canaries with a 95 % lower bound on epsilon,
membership inference by loss and by likelihood ratio, and the exposure of secrets that several units tell.
"""

import argparse
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from benchmarks.arms import Settings, calibrated_rules, load_backbone, trained
from benchmarks.attacks import (
    Floats,
    area_under_curve,
    exposure,
    likelihood_ratio_scores,
    true_positive_rate,
)
from benchmarks.machine import about
from benchmarks.world import QUICK, REPEATS, Sizes, World, world_of
from stages.core.files import write_json, write_text
from stages.core.speed import Speed
from stages.evaluation.losses import losses_of_rows
from stages.privacy.one_run_bound import ceiling, epsilon_lower_bound, guess
from stages.records.encoded import EncodedSet
from stages.records.row import rows_by_unit
from stages.reporting.figures import svg
from stages.vlm.encoder import encode_set
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule

METHODS = {
    # name: (visual tokens, estimator, update pruning)
    "non-private": ("all", "nonprivate", "all"),
    "DP-SGD": ("all", "gradient", "all"),
    "Dual-Priv": ("pruned", "gradient", "block"),
}
FALSE_POSITIVES = 0.01


def main() -> None:
    """Train, attack, print, write the table and its plot."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    sizes = QUICK if given.quick else Sizes()
    settings = Settings.read()
    settings = replace(settings, sampling=replace(settings.sampling, steps=sizes.steps, rate=sizes.rate))
    loaded, speed = load_backbone(settings)
    world = world_of(sizes, given.seed)
    rows, sets = [], dict[str, Encoded]()
    for name, (tokens, kind, prune) in METHODS.items():
        if tokens not in sets:
            sets[tokens] = Encoded.of(world, loaded, calibrated_rules()[tokens == "pruned"])
        for epsilon in sizes.epsilons if kind == "gradient" else (None,):
            arm = settings.as_kind(kind).as_prune(prune)
            arm = arm if epsilon is None else arm.as_epsilon(epsilon)
            found = attacked(arm, world, loaded, sets[tokens], speed, sizes)
            rows.append({"method": name, "claimed": epsilon, **found})
            print(f"{name}, epsilon {epsilon}: {rows[-1]}", file=sys.stderr, flush=True)
    found = {"about": about(), "seed": given.seed, "sizes": asdict(sizes), "rows": rows}
    write_json(given.json, found)
    write_text(given.json.with_suffix(".svg"), svg(plot(rows)))
    print(render(found))


@dataclass(frozen=True)
class Losses:
    """Losses of a model, part by part of the world; one a unit but for secrets and candidates."""

    members: Floats
    others: Floats
    planted: Floats
    left_out: Floats
    secrets: Floats
    candidates: Floats

    @classmethod
    def of(cls, model: Any, loaded: Loaded, asked: EncodedSet, world: World, speed: Speed) -> "Losses":
        """Ask a model about every row of ``world.asked()``, encoded in that order."""
        losses_R = losses_of_rows("losses", model, loaded.family, asked, speed.micro_batch)
        parts, start = {}, 0
        for name in ("members", "planted", "secrets", "others", "left_out", "candidates"):
            rows_of = getattr(world, name)
            own = losses_R[start : start + len(rows_of)]
            by_unit = name in ("secrets", "candidates")
            parts[name] = own if by_unit else np.array([own[unit].mean() for unit in rows_by_unit(rows_of)])
            start += len(rows_of)
        return cls(**parts)


@dataclass(frozen=True)
class Encoded:
    """The world as a model sees it under one token rule."""

    asked: EncodedSet
    shadows: list[EncodedSet]

    @classmethod
    def of(cls, world: World, loaded: Loaded, rule: Rule) -> "Encoded":
        """Run the tower on everybody's images, once."""
        shadows = [encode_set(loaded, rows, rule) for rows in world.shadows]
        return cls(encode_set(loaded, world.asked(), rule), shadows)


def attacked(
    arm: Settings, world: World, loaded: Loaded, sets: Encoded, speed: Speed, sizes: Sizes
) -> dict[str, Any]:
    """Train the model and its shadows, attack it, and return what was found."""
    asked, count = sets.asked, len(world.trained_on())
    own = replace(asked, rows=asked.rows[:count])
    before = Losses.of(loaded.model, loaded, asked, world, speed)
    after = _tuned(arm, own, loaded, asked, world, speed)
    shadows = [_tuned(arm, public, loaded, asked, world, speed) for public in sets.shadows]
    canaries = _canaries(before, after, sizes, arm.target.delta)
    losses_N = np.concatenate([after.members, after.others])
    is_member_N = np.arange(len(losses_N)) < len(after.members)
    shadow_losses_KN = np.stack([np.concatenate([one.members, one.others]) for one in shadows])
    scores = {"loss": -losses_N, "likelihood ratio": likelihood_ratio_scores(losses_N, shadow_losses_KN)}
    return {
        **canaries,
        "membership": {
            name: {
                "auc": area_under_curve(scores_N, is_member_N),
                "tpr": true_positive_rate(scores_N, is_member_N, FALSE_POSITIVES),
            }
            for name, scores_N in scores.items()
        },
        "exposure": _exposure(after, sizes),
    }


def _tuned(
    arm: Settings, train_set: EncodedSet, loaded: Loaded, asked: EncodedSet, world: World, speed: Speed
) -> Losses:
    """Train on a set and return the losses; the divisor of its noisy sum is as public as its size is here."""
    arm = arm.as_expected_batch(arm.sampling.rate * len(train_set.rows_by_unit()))
    learner, _ = trained(arm, arm.plan(), speed, train_set, seed=0)
    return Losses.of(learner.model, loaded, asked, world, speed)


def _canaries(before: Losses, after: Losses, sizes: Sizes, delta: float) -> dict[str, Any]:
    """Guess which canaries were in by how much their loss fell."""
    fell = [
        np.asarray(old - new)
        for old, new in ((before.planted, after.planted), (before.left_out, after.left_out))
    ]
    is_in_M = np.arange(sum(map(len, fell))) < len(fell[0])
    order = np.random.default_rng(0).permutation(len(is_in_M))  # ties must not tell
    guesses = guess(np.concatenate(fell)[order], is_in_M[order], sizes.guesses, sizes.guesses)
    return {
        "lower_bound": epsilon_lower_bound(guesses, delta),
        "guesses": asdict(guesses),
        "ceiling": ceiling(guesses.made, guesses.canaries, delta),
    }


def _exposure(after: Losses, sizes: Sizes) -> dict[str, float]:
    """Return the mean exposure in bits by how many units told a secret."""
    found: dict[str, float] = {}
    row = number = 0
    for repeats in REPEATS:
        bits = []
        for _ in range(sizes.secrets):
            others = after.candidates[number * sizes.candidates : (number + 1) * sizes.candidates]
            bits.append(exposure(float(after.secrets[row]), others))
            row, number = row + repeats, number + 1
        found[str(repeats)] = float(np.mean(bits))
    return found


def plot(rows: list[dict[str, Any]]) -> Any:
    """Draw claimed epsilon and lower bound, method by method."""
    marks = [
        {"run": _named(row), "what": what, "epsilon": value}
        for row in rows
        for what, value in (("claimed", row["claimed"]), ("lower bound", row["lower_bound"]))
        if value is not None
    ]
    return (
        alt.Chart(alt.InlineData(marks))
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X("epsilon:Q", scale=alt.Scale(domainMin=0)),
            y=alt.Y("run:N", title=None, sort=[_named(row) for row in rows]),
            color=alt.Color("what:N"),
            shape=alt.Shape("what:N"),
        )
    )


def _named(row: dict[str, Any]) -> str:
    return str(row["method"]) if row["claimed"] is None else f"{row['method']}, epsilon {row['claimed']:g}"


def render(found: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    kinds = ("loss", "likelihood ratio")
    lines = [
        f"{found['about']}; seed {found['seed']}",
        "",
        "| method | claimed epsilon | lower bound, 95 % | right guesses | could show at most "
        "| AUC: loss / likelihood ratio | TPR at 1 % FPR | exposure, bits: told "
        + " / ".join(f"{repeats}" for repeats in REPEATS)
        + " times |",
        "|---" * 8 + "|",
    ]
    for row in found["rows"]:
        claimed = "none" if row["claimed"] is None else f"{row['claimed']:g}"
        auc, tpr = (
            " / ".join(f"{row['membership'][kind][key]:.3f}" for kind in kinds) for key in ("auc", "tpr")
        )
        bits = " / ".join(f"{value:.1f}" for value in row["exposure"].values())
        guesses = row["guesses"]
        lines.append(
            f"| {row['method']} | {claimed} | {row['lower_bound']:.2f} "
            f"| {guesses['right']} of {guesses['made']} | {row['ceiling']:.2f} | {auc} | {tpr} | {bits} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
