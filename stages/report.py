"""The pages people read, and the directory to hand on: statement, results, model card, adapter."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, reads, section, writes
from stages.core.entry import main
from stages.core.files import new_directory, write_text
from stages.reporting.card import render_card
from stages.reporting.evidence import Choices, read_evidence
from stages.reporting.page import render_page
from stages.reporting.reference import Comparison, reference_of
from stages.trainable.adapters import adapter_files
from stages.trainable.settings import Trainable
from stages.training.optimizer import Optim
from stages.training.update_pruning import Update
from stages.vlm.selection import TokenSelection
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Report(Stage):
    """Render evidence that is public already into one page and a release directory; looks at no record."""

    trainable: Trainable
    update: Update
    tokens: TokenSelection
    optim: Optim
    model: Model
    rows_at_once: int = section("calibrate.rows_at_once")
    beside: Comparison = section("report")
    plan: Path = reads("data/plan.json")
    trace: Path = reads("data/finetune/trace.json")
    charges: Path = reads("data/account/charges.json")
    statement: Path = reads("data/account/statement.json")
    metrics: Path = reads("data/evaluate/metrics.json")
    importance: Path = reads("data/profile/profile.json")
    pruning: Path = reads("data/calibrate/pruning.json")
    canaries: Path = reads("data/canaries/canaries.json")
    layer_picture: Path = reads("data/profile/layers.png")
    patch_picture: Path = reads("data/calibrate/patches.png")
    adapter: Path = reads("models/adapter")
    report: Path = writes("data/report/report.html", evidence=True)
    release: Path = writes("models/release")

    def run(self) -> None:
        """Write the page; copy adapter and statement beside their model card."""
        evidence = read_evidence(
            plan=self.plan,
            trace=self.trace,
            charges=self.charges,
            statement=self.statement,
            metrics=self.metrics,
            importance=self.importance,
            pruning=self.pruning,
            canaries=self.canaries,
            layer_picture=self.layer_picture,
            patch_picture=self.patch_picture,
            adapter=self.adapter,
        )
        reference = reference_of(self.beside, self.statement, self.metrics)
        choices = Choices(
            trainable=self.trainable,
            update=self.update,
            tokens=self.tokens,
            optim=self.optim,
            model=self.model,
            rows_at_once=self.rows_at_once,
        )
        write_text(self.report, render_page(evidence, choices, reference))
        with new_directory(self.release) as directory:
            adapter = [self.adapter / name for name in adapter_files(self.adapter)]
            for file in (*adapter, self.statement):
                shutil.copyfile(file, directory / file.name)
            write_text(directory / "README.md", render_card(evidence, choices, reference))


if __name__ == "__main__":
    main(Report)
