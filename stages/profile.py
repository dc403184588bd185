"""Which encoder layer's attention best says what of an image matters; on public records, or charged."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from stages.core.contract import reads, reads_from, section, writes
from stages.core.entry import main
from stages.core.files import write_bytes, write_json, write_text
from stages.core.progress import PARTS, progress
from stages.core.speed import Speed, use
from stages.privacy.chain import Split
from stages.privacy.charge import public_choice
from stages.privacy.noised_sum import NoisedMean, NoisedSum
from stages.privacy.priced_precision import require_priced_precision
from stages.records.row import rows_by_unit
from stages.records.store import read_rows
from stages.training.one_release import Releasing, one_release
from stages.vlm.family import load
from stages.vlm.fidelity import Sample, choose_public_rows
from stages.vlm.importance import concentration, stability
from stages.vlm.loaded import Loaded
from stages.vlm.pictures import notice, png
from stages.vlm.selection import EVERY_TOKEN, Rule
from stages.vlm.sheets import layer_sheet
from stages.vlm.utilities import layer_utility, unit_utilities

MEASURES = ("accuracy", "drop", "concentration", "stability")
"""What the plot shows beside the log-likelihood, by which a layer is chosen."""


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """Section ``profile`` of params.yaml."""

    on: Literal["public", "train"]
    """The record set that is answered. ``train``: one noised sum over private units, which is charged."""
    records: int
    """Public rows to answer; unused on ``train``."""
    dominant: int
    contextual: int
    disturbed: int
    """Public images that are looked at again at half resolution, darker and with faded colours."""
    pictures: int
    """Public images on which every layer's importance is drawn."""
    private: NoisedMean
    """The mechanism on ``train``; its clip also bounds one row's log-likelihood. Unused on ``public``."""


@dataclass(frozen=True, kw_only=True)
class Profile(Releasing):
    """Measure encoder-layer importance: how well answers survive pruning by each layer's attention."""

    profile: ProfileSettings
    seed: int = section("seed.public")
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
    pictures: Path = writes(
        "data/profile/layers.png", evidence=True, plot={"title": "What each encoder layer looks at"}
    )

    def would_release(self) -> tuple[NoisedSum, Split, Path] | None:
        """Return the noised sum over private units; None where only public records are looked at."""
        return None if self.profile.on == "public" else (self.profile.private, "train", self.importance)

    def run(self) -> None:
        """Prune images by every layer in turn, answer their questions, and choose the best layer.

        The first stage that runs the model refuses a precision in which these people cannot be trained with.
        """
        require_priced_precision(self.model.precision, self.population)
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        loaded.family.require_prunable(loaded.model)
        rules = {
            layer: Rule(
                select="dominant_contextual",
                merge="cluster",
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
        rows = choose_public_rows(read_rows(self.records), self.profile.records, self.seed)
        sample, layers = Sample.of(loaded, rows, tuple(rules), speed.micro_batch), tuple(rules)
        full = sample.measure(EVERY_TOKEN)
        some = slice(self.profile.disturbed)
        count = self.profile.dominant
        seen = [seen for seen, _ in sample.seen]
        stable = stability(loaded, sample.images[some], seen[some], layers, count)
        found = []
        with progress("profile", len(rules)) as advance:
            for layer, rule in rules.items():
                dropping = sample.measure(replace(rule, merge="none", dominant=count, contextual=0))
                found.append(
                    {
                        "layer": layer,
                        **asdict(sample.measure(rule)),
                        "drop": full.log_likelihood - dropping.log_likelihood,
                        "concentration": mean(concentration(one.scores[layer], count) for one in seen),
                        "stability": stable[layer],
                        "multiplications": round(mean(one.work[layer] for one in seen)),
                    }
                )
                advance(len(found))
        write_bytes(self.pictures, png(layer_sheet(sample, layers, self.profile.pictures)))
        self._write(found, ("log_likelihood", *MEASURES), {"charge": public_choice(self.name())})

    def _on_private_units(self, loaded: Loaded, rules: dict[int, Rule], speed: Speed) -> None:
        mechanism, layers = self.profile.private, tuple(rules)
        utility = layer_utility(tuple(rules.values()), mechanism.clip)
        with (
            one_release(
                self, mechanism, self.records, "train", (self.importance, self.plot, self.pictures)
            ) as release,
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
            write_bytes(self.pictures, png(notice("No pictures: the records are private.")))
            self._write(found, ("log_likelihood",), release.to_json())

    def _write(self, found: list[dict[str, Any]], plotted: tuple[str, ...], about: dict[str, Any]) -> None:
        best = max(found, key=lambda entry: entry["log_likelihood"])
        budget = f"{self.profile.dominant} + {self.profile.contextual}"
        reason = (
            f"of {len(found)} layers, pruning to {budget} tokens by layer {best['layer']} leaves the answers "
            f"of {self.profile.on} records likeliest: {best['log_likelihood']:.4f} nats a token"
        )
        write_json(
            self.importance,
            {
                "version": 3,
                "records": self.profile.on,
                "layers": found,
                "chosen": best["layer"],
                "reason": reason,
                **about,
            },
        )
        lines = [f"{entry['layer']}," + ",".join(f"{entry[key]:.6f}" for key in plotted) for entry in found]
        write_text(self.plot, "\n".join([f"layer,{','.join(plotted)}", *lines]) + "\n")


if __name__ == "__main__":
    main(Profile)
