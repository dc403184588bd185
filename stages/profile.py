"""Which encoder layer's attention best says what of an image matters; on public records, or charged."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stages.core.contract import reads, reads_from, writes
from stages.core.entry import main
from stages.core.files import write_json, write_text
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
from stages.vlm.fidelity import Sample, choose_public_rows
from stages.vlm.utilities import layer_utility, unit_utilities


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """Section ``profile`` of params.yaml."""

    on: Literal["public", "train"]
    """The record set that is answered. ``train``: one noised sum over private units, which is charged."""
    records: int
    """Public rows to answer; unused on ``train``."""
    dominant: int
    contextual: int
    private: NoisedMean
    """The mechanism on ``train``; its clip also bounds one row's log-likelihood. Unused on ``public``."""


@dataclass(frozen=True, kw_only=True)
class Profile(Releasing):
    """Measure encoder-layer importance: how well answers survive pruning by each layer's attention."""

    profile: ProfileSettings
    seed: Seed
    backbone: Path = reads("models/backbone")
    records: Path = reads_from("profile.on", below="data/records")
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
        """Prune images by every layer in turn, answer their questions, and choose the best layer."""
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        loaded.family.require_prunable(loaded.model)
        rules = {
            layer: Rule(
                select="dominant_contextual",
                layer=layer,
                dominant=self.profile.dominant,
                contextual=self.profile.contextual,
            )
            for layer in loaded.family.scored_layers(loaded.model)
        }
        if self.profile.on == "public":
            self._on_public_records(loaded, rules, speed)
        else:
            self._on_private_units(loaded, rules, speed)

    def _on_public_records(self, loaded: Loaded, rules: dict[int, Rule], speed: Speed) -> None:
        rows = choose_public_rows(read_rows(self.records), self.profile.records, self.seed.public)
        sample = Sample.of(loaded, rows, tuple(rules), speed.micro_batch)
        found = []
        with progress("profile", len(rules)) as advance:
            for layer, rule in rules.items():
                found.append({"layer": layer, **asdict(sample.measure(rule))})
                advance(len(found))
        self._write(found, ("log_likelihood", "accuracy"), {"charge": public_choice(self.name())})

    def _on_private_units(self, loaded: Loaded, rules: dict[int, Rule], speed: Speed) -> None:
        mechanism, layers = self.profile.private, tuple(rules)
        utility = layer_utility(tuple(rules.values()), mechanism.clip)
        with (
            one_release(self, mechanism, self.records, "train", (self.importance, self.plot)) as release,
            progress("profile", PARTS) as advance,
        ):
            # private from here
            rows = read_rows(self.records)
            units = release.sample(rows_by_unit(rows))
            said_UL = unit_utilities(
                loaded, rows, units, layers, utility, len(layers), speed.micro_batch, advance
            )
            noised = release.noised(said_UL)
            del rows, units, said_UL
            # public from here
            found = [
                {"layer": layer, "log_likelihood": value}
                for layer, value in zip(layers, mechanism.mean(noised), strict=True)
            ]
            self._write(found, ("log_likelihood",), release.to_json())

    def _write(self, found: list[dict[str, Any]], plotted: tuple[str, ...], about: dict[str, Any]) -> None:
        best = max(found, key=lambda entry: entry["log_likelihood"])
        write_json(
            self.importance,
            {"version": 2, "records": self.profile.on, "layers": found, "chosen": best["layer"], **about},
        )
        lines = [f"{entry['layer']}," + ",".join(f"{entry[key]:.6f}" for key in plotted) for entry in found]
        write_text(self.plot, "\n".join([f"layer,{','.join(plotted)}", *lines]) + "\n")


if __name__ == "__main__":
    main(Profile)
