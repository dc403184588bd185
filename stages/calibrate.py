"""How many visual tokens are enough; on public records, or charged."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stages.core.contract import reads, reads_from, writes
from stages.core.entry import main
from stages.core.files import read_json, write_json, write_text
from stages.core.progress import PARTS, progress
from stages.core.seed import Seed
from stages.core.speed import Speed, use
from stages.privacy.charge import public_choice
from stages.privacy.noised_sum import NoisedMean
from stages.records.row import rows_by_unit
from stages.records.store import read_rows
from stages.training.one_release import Releasing, one_release
from stages.vlm.encoder import Rule
from stages.vlm.family import Loaded, load
from stages.vlm.fidelity import Sample, choose_public_rows, fidelity_of
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
    fidelity: float
    """Least fraction of the all-token accuracy that the chosen budget keeps."""
    private: NoisedMean
    """The mechanism on ``train``. Unused on ``public``."""

    def __post_init__(self) -> None:
        """Refuse an empty choice."""
        if not self.candidates or not 0 < self.fidelity <= 1:
            raise ValueError("calibrate needs at least one candidate and a fidelity in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Calibrate(Releasing):
    """Choose the smallest token budget that keeps the answers."""

    calibrate: CalibrateSettings
    seed: Seed
    backbone: Path = reads("models/backbone")
    records: Path = reads_from("calibrate.on", below="data/records")
    importance: Path = reads("data/profile/profile.json")
    calibration: Path = writes("data/calibrate/calibration.json", evidence=True)
    plot: Path = writes(
        "data/calibrate/fidelity.csv",
        evidence=True,
        plot={"x": "kept", "y": "fidelity", "title": "Accuracy kept, by visual tokens kept"},
    )

    def run(self) -> None:
        """Answer questions with every budget and with all tokens, and choose the smallest that is enough."""
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        loaded.family.require_prunable(loaded.model)
        layer = read_json(self.importance)["chosen"]
        every_token = Rule(select="all", layer=layer, dominant=0, contextual=0)
        rules = [
            Rule(select="dominant_contextual", layer=layer, dominant=dominant, contextual=contextual)
            for dominant, contextual in sorted(self.calibrate.candidates, key=sum)
        ]
        if self.calibrate.on == "public":
            self._on_public_records(loaded, every_token, rules, speed)
        else:
            self._on_private_units(loaded, every_token, rules, speed)

    def _on_public_records(self, loaded: Loaded, every_token: Rule, rules: list[Rule], speed: Speed) -> None:
        rows = choose_public_rows(read_rows(self.records), self.calibrate.records, self.seed.public + 1)
        sample = Sample.of(loaded, rows, (every_token.layer,), speed.micro_batch)
        full = sample.measure(every_token)
        found = []
        with progress("calibrate", len(rules)) as advance:
            for rule in rules:
                got = sample.measure(rule)
                fidelity = fidelity_of(got.accuracy, full.accuracy)
                found.append({**asdict(rule), **asdict(got), "fidelity": fidelity})
                advance(len(found))
        self._write(asdict(full), found, {"charge": public_choice(self.name())})

    def _on_private_units(self, loaded: Loaded, every_token: Rule, rules: list[Rule], speed: Speed) -> None:
        mechanism, layers = self.calibrate.private, (every_token.layer,)
        utility = budget_utility(every_token, rules)
        with (
            one_release(self, mechanism, self.records, "train", (self.calibration, self.plot)) as release,
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
            found = [
                {
                    **asdict(rule),
                    "kept": rule.dominant + rule.contextual,
                    "accuracy": accuracy - loss,
                    "fidelity": fidelity_of(accuracy - loss, accuracy),
                }
                for rule, loss in zip(rules, lost, strict=True)
            ]
            kept = loaded.family.slots_per_image(loaded.model)
            self._write({"kept": kept, "accuracy": accuracy}, found, release.to_json())

    def _write(self, full: dict[str, Any], found: list[dict[str, Any]], about: dict[str, Any]) -> None:
        enough = [entry for entry in found if entry["fidelity"] >= self.calibrate.fidelity]
        if not enough:
            reason = (
                f"no candidate keeps {self.calibrate.fidelity:.0%} of the accuracy on {self.calibrate.on} "
                f"records (best {max(entry['fidelity'] for entry in found):.1%})"
            )
            if self.calibrate.on == "public":
                raise ValueError(
                    f"{reason}: add larger budgets to calibrate.candidates or lower calibrate.fidelity"
                )
            print(
                f"calibrate: WARNING: {reason}; the largest is taken, for asking again would be charged again"
            )
            enough = found[-1:]
        chosen = {key: enough[0][key] for key in ("layer", "dominant", "contextual")}
        write_json(
            self.calibration,
            {
                "version": 2,
                "records": self.calibrate.on,
                "all": full,
                "candidates": found,
                "chosen": chosen,
                **about,
            },
        )
        lines = [f"{entry['kept']},{entry['fidelity']:.6f},{entry['accuracy']:.6f}" for entry in found]
        write_text(
            self.plot,
            "\n".join(["kept,fidelity,accuracy", *lines, f"{full['kept']},1.000000,{full['accuracy']:.6f}"])
            + "\n",
        )


if __name__ == "__main__":
    main(Calibrate)
