"""Zero-shot, DP-SGD, Dual-Priv and non-private on the default run, side by side.

``python -m benchmarks.default_run --seeds 3 --json FILE`` after ``dvc repro``. Every arm uses the settings
of ``params.yaml``, which were chosen on public records (benchmarks/choose_settings.py).
"""

import argparse
import datetime
import hashlib
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.arms import (
    Outcome,
    Settings,
    calibrated_rules,
    learner_of,
    load_backbone,
    run_arm,
    score,
)
from benchmarks.machine import machine
from benchmarks.quartiles import quartiles
from stages.core.files import read_json, sha256, write_json
from stages.privacy.plan import Plan
from stages.privacy.stream import RunKey, Streams
from stages.records.store import read_rows
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.noisy_mean import NoisyMean
from stages.training.optimizer import OptimizerState, update
from stages.training.update_pruning import updated_weights
from stages.vlm.encoder import encode_set

ARMS = {
    # name: (visual tokens, estimator, update pruning)
    "non-private": ("all", "nonprivate", "all"),
    "non-private, pruned": ("pruned", "nonprivate", "all"),
    "Dual-Priv": ("pruned", "gradient", "block"),
    "Dual-Priv, all tokens": ("all", "gradient", "block"),
    "DP-SGD": ("all", "gradient", "all"),
}
PAIRS = 9


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    settings = Settings.read()
    loaded, speed = load_backbone(settings)
    rules = dict(zip(("all", "pruned"), calibrated_rules(), strict=True))
    train_rows, heldout_rows = (read_rows(Path("data/records") / name) for name in ("train", "heldout"))
    train_sets = {name: encode_set(loaded, train_rows, rule) for name, rule in rules.items()}
    heldout_sets = {name: encode_set(loaded, heldout_rows, rule) for name, rule in rules.items()}
    table: dict[str, Any] = {}
    for name, heldout in heldout_sets.items():
        accuracy = score(loaded.model, loaded.family, heldout, speed)
        table["zero-shot" if name == "all" else "zero-shot, pruned"] = summary([accuracy], [0.0])
    plans = {kind: settings.as_kind(kind).plan() for kind in ("gradient", "nonprivate")}
    outcomes = Outcomes(given.json.with_suffix(".partial.json"), identity(settings))
    for seed in range(given.seeds):
        for name, (tokens, kind, prune) in ARMS.items():
            if outcomes.lacks(name, seed):
                arm = settings.as_kind(kind).as_prune(prune)
                found = run_arm(arm, plans[kind], speed, train_sets[tokens], heldout_sets[tokens], seed)
                outcomes.add(name, seed, found)
                print(f"seed {seed}: {name}: {found}", file=sys.stderr, flush=True)
    for name in ARMS:
        runs = [outcomes.of(name, seed) for seed in range(given.seeds)]
        table[name] = summary([run["accuracy"] for run in runs], [run["seconds"] for run in runs])
    ratios = step_ratios(
        settings, plans["gradient"], [learner_of(settings, speed, train_sets[name], 0) for name in rules]
    )
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "seeds": given.seeds,
        "epsilon": plans["gradient"].epsilon,
        "delta": plans["gradient"].delta,
        "noise_multiplier": plans["gradient"].noise_multiplier,
        "visual_tokens": {name: found.visual_tokens for name, found in train_sets.items()},
        "arms": table,
        "checks": checks(table),
        "step_time_ratio": ratios,
    }
    write_json(given.json, result)
    print(render(result))


class Outcomes:
    """Finished arms, on disk after each, so that a stopped benchmark goes on where it was."""

    def __init__(self, path: Path, inputs: str) -> None:
        """Read what an earlier run on equal inputs left."""
        self.path = path
        kept = read_json(path) if path.exists() else {}
        self.content: dict[str, Any] = (
            kept if kept.get("inputs") == inputs else {"inputs": inputs, "arms": {}}
        )

    def lacks(self, name: str, seed: int) -> bool:
        """Tell whether an arm has still to run."""
        return f"{name}, seed {seed}" not in self.content["arms"]

    def add(self, name: str, seed: int, found: Outcome) -> None:
        """Keep a finished arm."""
        self.content["arms"][f"{name}, seed {seed}"] = asdict(found)
        write_json(self.path, self.content)

    def of(self, name: str, seed: int) -> dict[str, Any]:
        """Return a finished arm."""
        found: dict[str, Any] = self.content["arms"][f"{name}, seed {seed}"]
        return found


def identity(settings: Settings) -> str:
    """Return a digest of everything that decides an arm's result but its seed."""
    files = [Path("data/records"), Path("models/backbone"), Path("data/calibrate/pruning.json")]
    return hashlib.sha256((repr(settings) + "".join(sha256(file) for file in files)).encode()).hexdigest()


def summary(accuracies: list[dict[str, float]], seconds: list[float]) -> dict[str, Any]:
    """Return mean, minimum and maximum by kind of question, and of the training time."""
    kinds = accuracies[0]
    return {
        "accuracy": {kind: spread([accuracy[kind] for accuracy in accuracies]) for kind in kinds},
        "seconds": spread(seconds),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return mean, minimum and maximum."""
    return {"mean": statistics.fmean(values), "minimum": min(values), "maximum": max(values)}


def checks(table: dict[str, Any]) -> dict[str, float]:
    """Return the figures that the default run promises, from mean digit accuracies."""
    digit = {name: arm["accuracy"]["digit"]["mean"] for name, arm in table.items()}
    gap = digit["non-private"] - digit["zero-shot"]
    return {
        "gap_recovered_by_dual_priv": (digit["Dual-Priv"] - digit["zero-shot"]) / gap,
        "gap_recovered_by_dp_sgd": (digit["DP-SGD"] - digit["zero-shot"]) / gap,
        "pruned_over_all_nonprivate": digit["non-private, pruned"] / digit["non-private"],
        "pruned_over_all_private": digit["Dual-Priv"] / digit["Dual-Priv, all tokens"],
    }


def step_ratios(settings: Settings, plan: Plan, learners: list[Learner]) -> dict[str, Any]:
    """Time one private step on all and on pruned tokens, interleaved, on the same sampled units."""
    streams = Streams(RunKey.fresh(), "benchmark", "finetune")
    times: list[list[float]] = [[], []]
    for pair in range(PAIRS + 1):
        for index, learner in enumerate(learners):
            times[index].append(one_step(settings, plan, learner, streams, pair))
    ratios = [pruned / full for full, pruned in zip(times[0][1:], times[1][1:], strict=True)]
    return {
        "pairs": len(ratios),
        **quartiles(ratios),
        "seconds_all": statistics.median(times[0][1:]),
        "seconds_pruned": statistics.median(times[1][1:]),
    }


def one_step(settings: Settings, plan: Plan, learner: Learner, streams: Streams, step: int) -> float:
    """Return the seconds of one whole private step: sample, clip, noise, prune, update."""
    mechanism, rows_by_unit = Mechanism.of(plan), learner.encoded.rows_by_unit()
    weights_P = learner.trainable.flat()
    start = time.perf_counter()
    units = mechanism.sample(rows_by_unit, streams, step)
    noises = mechanism.prepared_noise(learner.trainable, streams, step + 1)
    with noises as noise:  # drawn within the step, not ahead of it
        noisy = mechanism.release(mechanism.total(learner, units, step), noise, step)
    kept_P = updated_weights(
        noisy, list(learner.trainable.slices().values()), settings.update, seed=0, step=step
    )
    mean = NoisyMean.of(noisy, plan.sampling.expected_batch, mechanism.deviation())
    update(
        weights_P,
        OptimizerState.zeros(weights_P, settings.optim),
        mean,
        kept_P,
        settings.optim,
        settings.optim.learning_rate,
    )
    return time.perf_counter() - start


def render(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    kinds = list(next(iter(result["arms"].values()))["accuracy"])
    lines = [
        f"{result['date']}, {result['machine']}; {result['seeds']} seeds; epsilon "
        f"{result['epsilon']:.2f}, delta {result['delta']:g}; "
        f"{result['visual_tokens']['pruned']} of {result['visual_tokens']['all']} visual tokens",
        "",
        "| arm | " + " | ".join(f"{kind} %" for kind in kinds) + " | training s |",
        "|---" * (len(kinds) + 2) + "|",
    ]
    for name, arm in result["arms"].items():
        cells = [percent(arm["accuracy"][kind]) for kind in kinds]
        seconds = arm["seconds"]
        lines.append(
            f"| {name} | "
            + " | ".join(cells)
            + f" | {seconds['mean']:.0f} ({seconds['minimum']:.0f}-{seconds['maximum']:.0f}) |"
        )
    ratio = result["step_time_ratio"]
    lines += [
        "",
        *(f"- {name.replace('_', ' ')}: {value:.1%}" for name, value in result["checks"].items()),
        f"- time of one private step, pruned / all tokens: {ratio['median']:.2f} (quartiles "
        f"{ratio['q1']:.2f}-{ratio['q3']:.2f}, {ratio['pairs']} pairs)",
    ]
    return "\n".join(lines)


def percent(found: dict[str, float]) -> str:
    """Return mean (minimum-maximum) in percent."""
    return "{:.1f} ({:.1f}-{:.1f})".format(*(100 * found[key] for key in ("mean", "minimum", "maximum")))


if __name__ == "__main__":
    main()
