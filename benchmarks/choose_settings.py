"""Choose the fine-tuning settings on public records only.

``python -m benchmarks.choose_settings`` after ``dvc repro calibrate``. The public digits are redrawn in a
style that the backbone has not seen (turned, slanted, squeezed, small), a stand-in for a private population:
four units in five train, the others are held out. Every candidate trains with the noise-to-batch ratio that
the real population would get, so that a smaller public set shows the same signal and noise. Prints a Markdown
table; the best row is what ``params.yaml`` holds.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.arms import Settings, calibrated_rules, load_backbone, run_arm, score
from stages.core.files import write_json
from stages.demonstration.stand_in import restyle
from stages.records.row import Row
from stages.records.store import read_rows
from stages.vlm.encoder import encode_set

LEARNING_RATES = (0.003, 0.008)
CLIPS = (0.03, 0.1)


def stand_in(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return restyled digit rows, four units in five to train on and the others to score."""
    digits = [row for row in rows if row.kind in ("digit", "parity", "comparison")]
    unit_index = {unit: index for index, unit in enumerate(sorted({row.unit for row in digits}))}
    restyled = [
        replace(row, images=tuple(restyle(image, unit_index[row.unit]) for image in row.images))
        for row in digits
    ]
    held_out = [row for row in restyled if unit_index[row.unit] % 5 == 0]
    return [row for row in restyled if unit_index[row.unit] % 5], held_out


def candidates(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Yield named settings to try; the first is the ceiling without privacy."""
    yield "non-private", settings.as_kind("nonprivate").as_prune("all")
    for learning_rate in LEARNING_RATES:
        for clip in CLIPS:
            changed = replace(
                settings,
                optim=replace(settings.optim, learning_rate=learning_rate),
                estimator=replace(settings.estimator, clip=clip),
            )
            yield f"learning rate {learning_rate:g}, clip {clip:g}", changed


def main() -> None:
    """Train every candidate on the stand-in and print what it reached."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--json", type=Path, required=True)
    given = options.parse_args()
    settings = Settings.read()
    loaded, speed = load_backbone(settings)
    train_rows, heldout_rows = stand_in(read_rows(Path("data/records/public")))
    rule = calibrated_rules()[1]
    train_set, heldout = encode_set(loaded, train_rows, rule), encode_set(loaded, heldout_rows, rule)
    zero_shot = score(loaded.model, loaded.family, heldout, speed)["digit"]
    plan = settings.plan()
    batch = plan.sampling.rate * len(train_set.rows_by_unit())
    assert plan.noise_multiplier is not None
    scaled = plan.noise_multiplier * batch / plan.sampling.expected_batch
    found = []
    print(
        f"zero-shot digit accuracy on the stand-in: {zero_shot:.1%}\n\n| candidate | digit accuracy "
        "|\n|---|---|",
        flush=True,
    )
    for name, candidate in candidates(settings):
        public_plan = replace(candidate.plan(), sampling=replace(plan.sampling, expected_batch=batch))
        if public_plan.mechanism == "gaussian":
            public_plan = replace(public_plan, noise_multiplier=scaled)
        reached = [
            run_arm(candidate, public_plan, speed, train_set, heldout, seed).accuracy["digit"]
            for seed in range(given.seeds)
        ]
        found.append({"candidate": name, "digit": reached})
        print(f"| {name} | {' '.join(f'{value:.1%}' for value in reached)} |", flush=True)
    write_json(
        given.json, {"zero_shot": zero_shot, "noise_multiplier": scaled, "batch": batch, "candidates": found}
    )


if __name__ == "__main__":
    main()
