"""Every family, rule and kept share: how far answers move, what choosing costs, what a private step saves.

``python -m benchmarks.family_pruning --json FILE``: tiny models of the real classes with random weights, so
``moved`` (divergence of the answer's words from those with all tokens, in nats) compares rules within a
family and says nothing of trained models; for a trained one see ``benchmarks.token_pruning``. Ratios to all
tokens, each step timed beside its own reference.
"""

import argparse
import io
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.choosing import choosing_ratios, seconds
from benchmarks.machine import about
from benchmarks.quartiles import in_words, quartiles
from benchmarks.tiny_directories import TINY, write_directory
from benchmarks.trainable_section import trainable_section
from benchmarks.white_box import SPEED
from stages.core.files import write_json
from stages.privacy.clipping_rule import Clipping
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import EncodedSet
from stages.records.row import Message, Row
from stages.trainable.adapters import attach
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum
from stages.training.learner import Learner
from stages.vlm.attribution import first_axis
from stages.vlm.family import load
from stages.vlm.fidelity import Sample
from stages.vlm.loaded import Loaded
from stages.vlm.selection import EVERY_TOKEN, Rule, Select

RULES: tuple[Select, ...] = ("dominant_contextual", "diverse", "reconstruct", "grid", "random")
SHARES = (0.25, 0.5)
ROWS, REPEATS = 16, 9


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in TINY:
            loaded = load(write_directory(name, Path(folder) / name))
            found += [{"family": name, **row} for row in _family(loaded)]
            print(name, file=sys.stderr, flush=True)
    result = {"about": about(), "rows": ROWS, "found": found}
    write_json(given.json, result)
    print(render(result))


def _family(loaded: Loaded) -> list[dict[str, Any]]:
    sample = Sample.of(loaded, [_row(number) for number in range(ROWS)], (1,), ROWS)
    whole = sample.encode(EVERY_TOKEN)
    slots = float(whole.features.slots_I.mean())
    found = []
    for share in SHARES:
        budget = max(2, round(share * slots))
        contextual = max(1, budget // 6)
        for select in RULES:
            rule = Rule(
                select=select, merge="cluster", layer=1, dominant=budget - contextual, contextual=contextual
            )
            encoded = sample.encode(rule)
            step = _step(loaded, encoded, whole) if select == RULES[0] else {}
            found.append(
                {
                    "share": share,
                    "slots": slots,
                    "kept": float(encoded.features.slots_I.mean()),
                    "select": select,
                    "moved": sample.divergence(encoded, whole),
                    "encode": quartiles(choosing_ratios(loaded, sample.images, rule)),
                    **step,
                }
            )
    return found


def _step(loaded: Loaded, encoded: EncodedSet, whole: EncodedSet) -> dict[str, Any]:
    """Return time and bytes of the clipped sum over all rows, each a unit, as shares of all tokens'."""
    pruned, full = _learner(loaded, encoded), _learner(loaded, whole)
    units = [np.array([row]) for row in range(ROWS)]

    def work(learner: Learner) -> Callable[[], Any]:
        return lambda: clipped_gradient_sum(learner, units, Clipping(1.0))

    ratios = [seconds(work(pruned)) / seconds(work(full)) for _ in range(REPEATS + 1)]
    peaks = []
    for learner in (pruned, full):
        with Allocations(learner.model) as allocations:
            work(learner)()
        peaks.append(allocations.peak)
    return {"step_time": quartiles(ratios[1:]), "step_bytes": peaks[0] / peaks[1]}


def _learner(loaded: Loaded, encoded: EncodedSet) -> Learner:
    section = trainable_section("lora", 4, ("q_proj", "v_proj", "down_proj"))
    fresh = load(Path(loaded.model.config._name_or_path))
    model = attach(fresh.model, section, loaded.family, seed=0)
    speed = replace(SPEED, micro_batch=ROWS)
    layers = TrainableLayers.of(model, first_axis(model.config.model_type))  # type: ignore[union-attr, arg-type]
    return Learner(model, loaded.family, layers, encoded, speed)


def _row(number: int) -> Row:
    width, height = ((64, 64), (96, 64), (64, 128))[number % 3]
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    turns = (Message("user", "<image>which digit is this ?"), Message("assistant", "seven"))
    return Row(f"row {number}", f"unit {number}", "digit", turns, (file.getvalue(),))


def render(result: dict[str, Any]) -> str:
    """Return the table as Markdown: a line a family and share."""
    lines = [
        f"{result['about']}; {result['rows']} rows, tiny random models; `moved` in nats, encode as a ratio "
        "to the tower alone, step as ratios to all tokens",
        "",
        "| family | kept | step time | step bytes | "
        + " | ".join(f"`{select}` moved (encode)" for select in RULES)
        + " |",
        "|---" * (4 + len(RULES)) + "|",
    ]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in result["found"]:
        groups.setdefault((row["family"], row["share"]), []).append(row)
    for (family, _), rows in groups.items():
        first = rows[0]
        cells = [f"{row['moved']:.2f} ({row['encode']['median']:.2f})" for row in rows]
        lines.append(
            f"| {family} | {first['kept']:.0f} of {first['slots']:.0f} | {in_words(first['step_time'])} | "
            f"{first['step_bytes']:.2f} | " + " | ".join(cells) + " |"
        )
    means = {
        select: statistics.mean(row["moved"] for row in result["found"] if row["select"] == select)
        for select in RULES
    }
    lines += ["", "mean moved: " + ", ".join(f"`{select}` {mean:.2f}" for select, mean in means.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
