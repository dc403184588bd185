"""How many visual tokens are enough. Public records only: charges nothing."""

from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json, write_json, write_text
from stages.core.progress import progress
from stages.core.seed import Seed
from stages.core.speed import Speed, use
from stages.records.store import read_rows
from stages.vlm.encoder import Rule
from stages.vlm.family import load
from stages.vlm.fidelity import PublicSample, choose_public_rows, fidelity_of
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings:
    """Section ``calibrate`` of params.yaml."""

    records: int
    """Public rows to answer."""
    candidates: tuple[tuple[int, int], ...]
    """Budgets to try: (dominant, contextual)."""
    fidelity: float
    """Least fraction of the all-token accuracy that the chosen budget keeps."""

    def __post_init__(self) -> None:
        """Refuse an empty choice."""
        if not self.candidates or not 0 < self.fidelity <= 1:
            raise ValueError("calibrate needs at least one candidate and a fidelity in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Calibrate(Stage):
    """Choose the smallest token budget that keeps the answers on public records."""

    calibrate: CalibrateSettings
    model: Model
    seed: Seed
    backbone: Path = reads("models/backbone")
    public: Path = reads("data/records/public")
    importance: Path = reads("data/profile/profile.json")
    calibration: Path = writes("data/calibrate/calibration.json", evidence=True)
    plot: Path = writes(
        "data/calibrate/fidelity.csv",
        evidence=True,
        plot={"x": "kept", "y": "fidelity", "title": "Accuracy kept, by visual tokens kept"},
    )

    def run(self) -> None:
        """Answer public questions with every budget, smallest first, and with all tokens."""
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        rows = choose_public_rows(read_rows(self.public), self.calibrate.records, self.seed.public + 1)
        layer = read_json(self.importance)["chosen"]
        rules = [
            Rule(select="dominant_contextual", layer=layer, dominant=d, contextual=c)
            for d, c in self.calibrate.candidates
        ]
        sample = PublicSample.of(loaded, rows, (layer,), speed.micro_batch)
        full = sample.measure(Rule(select="all", layer=layer, dominant=0, contextual=0))
        found = []
        with progress("calibrate", len(rules)) as advance:
            for rule in sorted(rules, key=lambda rule: rule.dominant + rule.contextual):
                got = sample.measure(rule)
                found.append({**asdict(rule), **asdict(got), "fidelity": fidelity_of(got, full)})
                advance(len(found))
        enough = [entry for entry in found if entry["fidelity"] >= self.calibrate.fidelity]
        if not enough:
            raise ValueError(
                f"no candidate keeps {self.calibrate.fidelity:.0%} of the public accuracy (best "
                f"{max(entry['fidelity'] for entry in found):.1%}): "
                "add larger budgets to calibrate.candidates or lower calibrate.fidelity"
            )
        chosen = {key: enough[0][key] for key in ("layer", "dominant", "contextual")}
        write_json(
            self.calibration,
            {"version": 1, "records": "public", "all": asdict(full), "candidates": found, "chosen": chosen},
        )
        lines = [f"{entry['kept']},{entry['fidelity']:.6f},{entry['accuracy']:.6f}" for entry in found]
        write_text(
            self.plot,
            "\n".join(["kept,fidelity,accuracy", *lines, f"{full.kept},1.000000,{full.accuracy:.6f}"]) + "\n",
        )


if __name__ == "__main__":
    main(Calibrate)
