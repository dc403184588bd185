"""Rules that choose visual tokens, side by side on the default backbone.

``python -m benchmarks.token_pruning --json FILE`` after ``dvc repro``: how much of the accuracy with all
tokens is kept on public records, and what choosing costs beside the tower. ``random`` and ``grid`` are the
controls.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.arms import Settings, load_backbone
from benchmarks.choosing import choosing_ratios
from benchmarks.machine import about
from benchmarks.quartiles import quartiles
from benchmarks.world import records_of_people
from stages.core.files import read_json, write_json
from stages.vlm.fidelity import Sample, choose_public_rows, fidelity_of
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Merge, Rule, Select

RULES: tuple[tuple[Select, Merge], ...] = (
    ("dominant_contextual", "cluster"),
    ("dominant_contextual", "cluster_average"),
    ("dominant_contextual", "none"),
    ("diverse", "cluster"),
    ("diverse", "none"),
    ("reconstruct", "cluster"),
    ("reconstruct", "none"),
    ("grid", "none"),
    ("random", "cluster"),
    ("random", "none"),
)
BUDGETS = ((6, 2), (9, 3), (12, 4), (16, 4), (20, 4))
"""(dominant, contextual); rules that merge nothing keep as many as both together."""
PICTURES = 40


def main() -> None:
    """Answer, time, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    options.add_argument("--records", type=int, default=1500)
    given = options.parse_args()
    loaded, speed = load_backbone(Settings.read())
    layer = int(read_json(Path("data/profile/profile.json"))["chosen"])
    rows = choose_public_rows(records_of_people("public"), given.records, seed=0)
    sample = Sample.of(loaded, rows, (layer,), speed.micro_batch)
    full = sample.measure(_selection("all", "none", layer, 1, 0))
    found = []
    for select, merge in RULES:
        for dominant, contextual in BUDGETS:
            rule = _selection(select, merge, layer, dominant, contextual)
            got = sample.measure(rule)
            found.append(
                {
                    "select": select,
                    "merge": merge,
                    "budget": dominant + contextual,
                    **asdict(got),
                    "fidelity": fidelity_of(got.accuracy, full.accuracy),
                    "choosing": asdict(_choosing(loaded, sample, rule)),
                }
            )
        print(found[-1], file=sys.stderr, flush=True)
    result = {"about": about(), "rows": len(rows), "layer": layer, "all": asdict(full), "rules": found}
    write_json(given.json, result)
    print(render(result))


def _selection(select: Select, merge: Merge, layer: int, dominant: int, contextual: int) -> Rule:
    return Rule(select=select, merge=merge, layer=layer, dominant=dominant, contextual=contextual)


@dataclass(frozen=True)
class Choosing:
    """Seconds that a rule adds to the tower's own for one image, as a share of these."""

    median: float
    q1: float
    q3: float


def _choosing(loaded: Loaded, sample: Sample, rule: Rule) -> Choosing:
    images = [image for row in sample.rows for image in row.images][:PICTURES]
    return Choosing(**quartiles([ratio - 1 for ratio in choosing_ratios(loaded, images, rule)]))


def render(result: dict[str, Any]) -> str:
    """Return fidelity by rule and budget, and what choosing costs, as Markdown."""
    budgets = [sum(budget) for budget in BUDGETS]
    full = result["all"]
    lines = [
        f"{result['about']}; {result['rows']} public records, {full['accuracy']:.1%} exact with all "
        f"{full['kept']} tokens; attention of layer {result['layer']}",
        "",
        "| rule | merging | "
        + " | ".join(f"{budget} of {full['kept']}" for budget in budgets)
        + " | choosing |",
        "|---" * (len(budgets) + 3) + "|",
    ]
    for select, merge in RULES:
        own = [one for one in result["rules"] if (one["select"], one["merge"]) == (select, merge)]
        cells = [
            f"{one['fidelity']:.1%}" + (f" ({one['kept']})" if one["kept"] != one["budget"] else "")
            for one in own
        ]
        cost = own[-1]["choosing"]
        lines.append(
            f"| `{select}` | `{merge}` | " + " | ".join(cells) + f" | +{cost['median']:.0%} "
            f"({cost['q1']:.0%} to {cost['q3']:.0%}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
