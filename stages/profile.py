"""Which encoder layer's attention best says what of an image matters; public records, no charge."""

from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import write_json, write_text
from stages.core.progress import progress
from stages.core.seed import Seed
from stages.core.speed import Speed, use
from stages.records.store import read_rows
from stages.vlm.encoder import Rule
from stages.vlm.family import load
from stages.vlm.fidelity import PublicSample, choose_public_rows
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """Section ``profile`` of params.yaml."""

    records: int
    """Public rows to answer."""
    dominant: int
    contextual: int


@dataclass(frozen=True, kw_only=True)
class Profile(Stage):
    """Measure encoder-layer importance: how well answers survive pruning by each layer's attention."""

    profile: ProfileSettings
    model: Model
    seed: Seed
    backbone: Path = reads("models/backbone")
    public: Path = reads("data/records/public")
    importance: Path = writes("data/profile/profile.json", evidence=True)
    plot: Path = writes(
        "data/profile/importance.csv",
        evidence=True,
        plot={
            "x": "layer",
            "y": "log_likelihood",
            "title": "Answers kept, by the layer that scores the patches",
        },
    )

    def run(self) -> None:
        """Prune public images by every layer in turn and answer their questions."""
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        rows = choose_public_rows(read_rows(self.public), self.profile.records, self.seed.public)
        layers = loaded.family.scored_layers(loaded.model)
        sample = PublicSample.of(loaded, rows, layers, speed.micro_batch)
        budget = {"dominant": self.profile.dominant, "contextual": self.profile.contextual}
        found = []
        with progress("profile", len(layers)) as advance:
            for layer in layers:
                rule = Rule(select="dominant_contextual", layer=layer, **budget)
                found.append({"layer": layer, **asdict(sample.measure(rule))})
                advance(len(found))
        best = max(found, key=lambda entry: entry["log_likelihood"])
        write_json(
            self.importance, {"version": 1, "records": "public", "layers": found, "chosen": best["layer"]}
        )
        lines = [f"{entry['layer']},{entry['log_likelihood']:.6f},{entry['accuracy']:.6f}" for entry in found]
        write_text(self.plot, "\n".join(["layer,log_likelihood,accuracy", *lines]) + "\n")


if __name__ == "__main__":
    main(Profile)
