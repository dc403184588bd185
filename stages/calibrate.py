"""How many visual tokens are enough; on public records, or charged."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stages.core.contract import reads, reads_from, section, writes
from stages.core.entry import main
from stages.core.files import read_json, write_bytes, write_json, write_text
from stages.core.progress import PARTS, progress
from stages.core.speed import Speed, use
from stages.privacy.chain import Split
from stages.privacy.charge import public_choice
from stages.privacy.clipping_rule import Groups
from stages.privacy.noised_sum import NoisedMean, NoisedSum
from stages.privacy.plan import EstimatorKind
from stages.records.row import rows_by_unit
from stages.records.store import read_rows
from stages.trainable.settings import Trainable
from stages.training.memory import GIB
from stages.training.one_release import Releasing, one_release
from stages.training.step_memory import StepMemory
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
    keep_fidelity: float | None
    """Least fraction of the all-token accuracy that is kept; None: the largest budget within the limits."""
    step_limit: float | None
    """Most arithmetic of a row in a training step, as a share of that with all tokens."""
    memory_limit: float | None
    """GiB of tensors that a step on ``rows_at_once`` rows may have alive at once above the weights."""
    rows_at_once: int
    """Public rows, those with most tokens, on which the bytes of a step are counted; unused on ``train``."""
    pictures: int
    """Public images on which every rule's choice is drawn."""
    private: NoisedMean
    """The mechanism on ``train``. Unused on ``public``."""

    def __post_init__(self) -> None:
        """Refuse an empty choice."""
        least = self.keep_fidelity
        if not self.candidates or (least is not None and not 0 < least <= 1):
            raise ValueError("calibrate needs at least one candidate and a keep_fidelity in (0, 1]")
        if self.rows_at_once < 1:
            raise ValueError(f"calibrate.rows_at_once must be at least 1, got {self.rows_at_once}")
        if self.memory_limit is not None and not self.memory_limit > 0:
            raise ValueError(f"calibrate.memory_limit is null or a positive number, got {self.memory_limit}")
        if least is None and self.step_limit is None and self.memory_limit is None:
            raise ValueError(
                "calibrate has nothing to choose by: set keep_fidelity, step_limit or memory_limit"
            )
        if self.step_limit is not None and not 0 < self.step_limit <= 1:
            raise ValueError(f"calibrate.step_limit is null or a share in (0, 1], got {self.step_limit}")

    def choose(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the smallest budget that keeps enough, or the largest that costs no more than it may."""
        least = self.keep_fidelity
        if least is None:
            within = [entry for entry in found if self._excess(entry) is None]
            if not within:
                raise ValueError(f"{self._excess(found[0])}: raise it, or add smaller calibrate.candidates")
            return within[-1]
        enough = [entry for entry in found if entry["fidelity"] >= least]
        if not enough:
            reason = (
                f"no candidate keeps {least:.0%} of the accuracy on {self.on} records (best "
                f"{max(entry['fidelity'] for entry in found):.1%})"
            )
            if self.on == "public":
                raise ValueError(
                    f"{reason}: add larger budgets to calibrate.candidates or lower calibrate.keep_fidelity"
                )
            print(
                f"calibrate: WARNING: {reason}; the largest is taken, for asking again would be charged again"
            )
            return found[-1]
        excess = self._excess(enough[0])
        if excess is not None:
            raise ValueError(
                f"to keep {least:.0%} of the accuracy, {excess}: raise it or lower calibrate.keep_fidelity"
            )
        return enough[0]

    def _excess(self, entry: dict[str, Any]) -> str | None:
        """Return in words which limit a budget breaks; None where it keeps both."""
        step, memory = self.step_limit, self.memory_limit
        takes = f"{entry['kept']} visual tokens an image are the fewest, and a step then"
        if step is not None and entry["step"] > step:
            return (
                f"{takes} costs {entry['step']:.0%} of one with all, over calibrate.step_limit of {step:.0%}"
            )
        if memory is not None and entry["bytes"] > memory * GIB:
            return (
                f"{takes} needs {entry['bytes'] / GIB:.3g} GiB for {self.rows_at_once} rows, over "
                f"calibrate.memory_limit of {memory:g} GiB"
            )
        return None


@dataclass(frozen=True, kw_only=True)
class Calibrate(Releasing):
    """Choose the smallest token budget that keeps the answers, or the largest within the limits."""

    calibrate: CalibrateSettings
    tokens: TokenSelection
    trainable: Trainable
    estimator: EstimatorKind = section("estimator.kind")
    clip_groups: Groups = section("estimator.clip_groups")
    seed: int = section("seed.public")
    backbone: Path = reads("models/backbone")
    records: Path = reads_from("calibrate.on", below="data/records")
    importance: Path = reads("data/profile/profile.json")
    pruning: Path = writes("data/calibrate/pruning.json", evidence=True)
    plot: Path = writes(
        "data/calibrate/frontier.csv",
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

    def would_release(self) -> tuple[NoisedSum, Split, Path] | None:
        """Return the noised sum over private units; None where only public records are looked at."""
        return None if self.calibrate.on == "public" else (self.calibrate.private, "train", self.pruning)

    def run(self) -> None:
        """Answer questions with every budget and with all tokens, and choose one."""
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
            selection.under({"layer": layer, "dominant": dominant, "contextual": contextual})
            for dominant, contextual in sorted(self.calibrate.candidates, key=sum)
        ]

    def _on_public_records(self, loaded: Loaded, layer: int, pruned: TokenSelection, speed: Speed) -> None:
        rows = choose_public_rows(read_rows(self.records), self.calibrate.records, self.seed + 1)
        sample = Sample.of(loaded, rows, (layer,), speed.micro_batch)
        others = [
            TokenSelection(select=select, merge=merge, fusion_noise=0.0)
            for select, merge in self.calibrate.beside
        ]
        selections = [pruned, *(other for other in others if other != pruned)]
        rules = [rule for selection in selections for rule in self._rules(selection, layer)]
        work = self._work(loaded)
        with progress("calibrate", len(rules) * sample.batches()) as advance:
            frontier = Frontier.of(sample, rules, work, advance)
        budgets = len(self.calibrate.candidates)
        shown = rules[budgets // 2 :: budgets]
        write_bytes(self.pictures, png(contact_sheet(sample, shown, self.calibrate.pictures)))
        full, *found = self._with_bytes(sample, frontier, rules, speed)
        about = {"beside": found[budgets:], "charge": public_choice(self.name())}
        self._write(full, found[:budgets], about)

    def _with_bytes(
        self, sample: Sample, frontier: Frontier, rules: list[Rule], speed: Speed
    ) -> list[dict[str, Any]]:
        """Return what all tokens and what every rule gives, each with the bytes of a step.

        The last act: the model is changed by it.
        """
        part = sample.of_rows(frontier.longest[: self.calibrate.rows_at_once])
        encoded = part.encode(EVERY_TOKEN)
        memory = StepMemory.of(
            sample.loaded, self.trainable, self.estimator, self.clip_groups, self.seed, speed, encoded
        )
        full = {**frontier.full, "bytes": memory.bytes(encoded)}
        pairs = zip(rules, frontier.found, strict=True)
        return [full, *({**entry, "bytes": memory.bytes(part.encode(rule))} for rule, entry in pairs)]

    def _work(self, loaded: Loaded) -> StepWork:
        return StepWork.of(loaded.model, loaded.family, self.trainable, self.estimator)

    def _on_private_units(self, loaded: Loaded, rules: list[Rule], speed: Speed) -> None:
        for name in ("step_limit", "memory_limit"):
            if getattr(self.calibrate, name) is not None:
                raise ValueError(
                    f"calibrate.{name} asks how long rows are, which nobody accounts for: set it to null, or "
                    "calibrate.on to public"
                )
        mechanism, layers = self.calibrate.private, (rules[0].layer,)
        utility = budget_utility(EVERY_TOKEN, rules)
        outputs = (self.pruning, self.plot, self.pictures)
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
        chosen = self.calibrate.choose(found)
        write_json(
            self.pruning,
            {
                "version": 4,
                "records": self.calibrate.on,
                "all": full,
                "candidates": found,
                "chosen": {key: chosen[key] for key in ("layer", "dominant", "contextual")},
                **about,
            },
        )
        write_text(self.plot, frontier_table(full, [*found, *about.get("beside", [])]))


if __name__ == "__main__":
    main(Calibrate)
