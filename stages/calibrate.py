"""How many visual tokens are enough; on public records, or charged."""

from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from stages.core.contract import reads, reads_from, writes
from stages.core.entry import main
from stages.core.files import read_json, write_bytes, write_json, write_text
from stages.core.progress import PARTS, progress
from stages.core.seed import Seed
from stages.core.speed import Speed, use
from stages.privacy.charge import public_choice
from stages.privacy.noised_sum import NoisedMean
from stages.records.row import rows_by_unit
from stages.records.store import read_rows
from stages.trainable.settings import Trainable
from stages.training.one_release import Releasing, one_release
from stages.vlm.family import load
from stages.vlm.fidelity import Sample, choose_public_rows, fidelity_of
from stages.vlm.frontier import Frontier, frontier_table
from stages.vlm.loaded import Loaded
from stages.vlm.pictures import notice, png
from stages.vlm.selection import EVERY_TOKEN, Merge, Rule, Select, TokenSelection
from stages.vlm.sheets import contact_sheet
from stages.vlm.step_work import StepWork
from stages.vlm.utilities import budget_utility, unit_utilities


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings:
    """Section ``calibrate`` of params.yaml."""

    on: Literal["public", "train"]
    """The record set that is answered. ``train``: one noised sum over private units, which is charged."""
    records: int
    """Public rows to answer; unused on ``train``."""
    candidates: tuple[tuple[int, int], ...]
    """Budgets to try: (dominant, contextual)."""
    beside: tuple[tuple[Select, Merge], ...]
    """Rules that are tried beside that of section ``tokens``, on public records, to compare it with."""
    keep_fidelity: float
    """Least fraction of the all-token accuracy that the chosen budget keeps."""
    step_limit: float | None
    """Most arithmetic of a row in a training step, as a share of that with all tokens."""
    pictures: int
    """Public images on which every rule's choice is drawn."""
    private: NoisedMean
    """The mechanism on ``train``. Unused on ``public``."""

    def __post_init__(self) -> None:
        """Refuse an empty choice."""
        if not self.candidates or not 0 < self.keep_fidelity <= 1:
            raise ValueError("calibrate needs at least one candidate and a keep_fidelity in (0, 1]")
        if self.step_limit is not None and not 0 < self.step_limit <= 1:
            raise ValueError(f"calibrate.step_limit is null or a share in (0, 1], got {self.step_limit}")


@dataclass(frozen=True, kw_only=True)
class Calibrate(Releasing):
    """Choose the smallest token budget that keeps the answers."""

    calibrate: CalibrateSettings
    tokens: TokenSelection
    trainable: Trainable
    seed: Seed
    backbone: Path = reads("models/backbone")
    records: Path = reads_from("calibrate.on", below="data/records")
    importance: Path = reads("data/profile/profile.json")
    calibration: Path = writes("data/calibrate/calibration.json", evidence=True)
    plot: Path = writes(
        "data/calibrate/fidelity.csv",
        evidence=True,
        plot={
            "x": "kept",
            "y": "fidelity",
            "template": "scatter",
            "title": "Accuracy kept, by visual tokens kept, of every rule",
        },
    )
    pictures: Path = writes(
        "data/calibrate/patches.png", evidence=True, plot={"title": "Patches kept, merged and dropped"}
    )

    def run(self) -> None:
        """Answer questions with every budget and with all tokens, and choose the smallest that is enough."""
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        loaded.family.require_prunable(loaded.model)
        layer = read_json(self.importance)["chosen"]
        pruned = self.tokens
        if pruned.select == "all":  # what it would be if images were pruned
            pruned = TokenSelection(select="dominant_contextual", merge="cluster", fusion_noise=0.0)
        if self.calibrate.on == "public":
            self._on_public_records(loaded, layer, pruned, speed)
        else:
            self._on_private_units(loaded, self._rules(pruned, layer), speed)

    def _rules(self, selection: TokenSelection, layer: int) -> list[Rule]:
        """Return a rule under each budget, smallest first."""
        return [
            Rule(**asdict(selection), layer=layer, dominant=dominant, contextual=contextual)
            for dominant, contextual in sorted(self.calibrate.candidates, key=sum)
        ]

    def _on_public_records(self, loaded: Loaded, layer: int, pruned: TokenSelection, speed: Speed) -> None:
        rows = choose_public_rows(read_rows(self.records), self.calibrate.records, self.seed.public + 1)
        sample = Sample.of(loaded, rows, (layer,), speed.micro_batch)
        others = [
            TokenSelection(select=select, merge=merge, fusion_noise=0.0)
            for select, merge in self.calibrate.beside
        ]
        selections = [pruned, *(other for other in others if other != pruned)]
        rules = [self._rules(selection, layer) for selection in selections]
        frontier = Frontier.of(sample, self._work(loaded))
        found: list[dict[str, Any]] = []
        budgets = len(self.calibrate.candidates)
        with progress("calibrate", budgets * len(rules)) as advance:
            for rule in chain(*rules):
                found.append(frontier.measure(rule))
                advance(len(found))
        shown = [budget[len(budget) // 2] for budget in rules]
        write_bytes(self.pictures, png(contact_sheet(sample, shown, self.calibrate.pictures)))
        about = {"beside": found[budgets:], "charge": public_choice(self.name())}
        self._write(frontier.every_token(), found[:budgets], about)

    def _work(self, loaded: Loaded) -> StepWork:
        return StepWork.of(loaded.model, loaded.family, self.trainable)

    def _on_private_units(self, loaded: Loaded, rules: list[Rule], speed: Speed) -> None:
        if self.calibrate.step_limit is not None:
            raise ValueError(
                "calibrate.step_limit asks how long rows are, which nobody accounts for: set it to null, or "
                "calibrate.on to public"
            )
        mechanism, layers = self.calibrate.private, (rules[0].layer,)
        utility = budget_utility(EVERY_TOKEN, rules)
        outputs = (self.calibration, self.plot, self.pictures)
        with (
            one_release(self, mechanism, self.records, "train", outputs) as release,
            progress("calibrate", PARTS) as advance,
        ):
            # private from here
            rows = read_rows(self.records)
            units = release.sample(rows_by_unit(rows))
            said_UK = unit_utilities(
                loaded, rows, units, layers, utility, 1 + len(rules), speed.micro_batch, advance
            )
            noised = release.noised(said_UK)
            del rows, units, said_UK
            # public from here
            accuracy, *lost = mechanism.mean(noised)
            kept = loaded.family.slots_per_image(loaded.model)
            found = [
                {
                    **asdict(rule),
                    "kept": rule.slots(kept),
                    "accuracy": accuracy - loss,
                    "fidelity": fidelity_of(accuracy - loss, accuracy),
                }
                for rule, loss in zip(rules, lost, strict=True)
            ]
            write_bytes(self.pictures, png(notice("No pictures: the records are private.")))
            self._write({"kept": kept, "accuracy": accuracy}, found, release.to_json())

    def _write(self, full: dict[str, Any], found: list[dict[str, Any]], about: dict[str, Any]) -> None:
        chosen = self._choose(found)
        write_json(
            self.calibration,
            {
                "version": 3,
                "records": self.calibrate.on,
                "all": full,
                "candidates": found,
                "chosen": {key: chosen[key] for key in ("layer", "dominant", "contextual")},
                **about,
            },
        )
        write_text(self.plot, frontier_table(full, [*found, *about.get("beside", [])]))

    def _choose(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the smallest budget that keeps enough and costs no more than it may."""
        least, limit = self.calibrate.keep_fidelity, self.calibrate.step_limit
        enough = [entry for entry in found if entry["fidelity"] >= least]
        if not enough:
            reason = (
                f"no candidate keeps {least:.0%} of the accuracy on {self.calibrate.on} records (best "
                f"{max(entry['fidelity'] for entry in found):.1%})"
            )
            if self.calibrate.on == "public":
                raise ValueError(
                    f"{reason}: add larger budgets to calibrate.candidates or lower calibrate.keep_fidelity"
                )
            print(
                f"calibrate: WARNING: {reason}; the largest is taken, for asking again would be charged again"
            )
            return found[-1]
        if limit is not None and enough[0]["step"] > limit:
            raise ValueError(
                f"to keep {least:.0%} of the accuracy takes {enough[0]['kept']} visual tokens, and a step "
                f"then costs {enough[0]['step']:.0%} of one with all, more than calibrate.step_limit of "
                f"{limit:.0%}: raise it or lower calibrate.keep_fidelity"
            )
        return enough[0]


if __name__ == "__main__":
    main(Calibrate)
