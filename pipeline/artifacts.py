"""What Prefect shows of a run: bars while stages work, and at the end what was released. Nothing else.

All of it comes from files that are published anyway: the privacy statement, and metrics that are released
exactly on public records or with noise that was charged.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from pipeline.dvc_graph import Step
from stages.core.files import read_json
from stages.privacy.evidence import METRICS, STATEMENT

REPORT = "data/report/report.html"


class ProgressArtifact:
    """The bar that Prefect shows for a stage; made at the first step that is reported."""

    def __init__(self, step: Step) -> None:
        """Show how far ``step`` is; the number of a step is public."""
        self._step = step
        self._artifact: UUID | None = None

    def __call__(self, done: int, of: int) -> None:
        """Show that ``done`` of ``of`` steps are done."""
        try:
            self._show(100.0 * done / of)
        except Exception as error:  # whatever the client of a server that is away raises: it ends no run
            logging.getLogger(__name__).info("progress of %s is not shown: %s", self._step.name, error)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            key = "progress-" + self._step.name.replace("_", "-")
            made = create_progress_artifact(percent, key=key, description=self._step.summary)
            assert isinstance(made, UUID)  # a coroutine only where an event loop runs
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent)


def publish_results(root: Path, branch: str | None) -> None:
    """Show the privacy statement, the metrics and where the report is, as far as the pipeline wrote them.

    ``branch`` is where a worker's clone was brought to; None in somebody's own checkout.
    """
    if (root / STATEMENT).exists():
        said = read_json(root / STATEMENT)
        rows = [f"| {key} | {json.dumps(value)} |" for key, value in said.items()]
        table = "\n".join(["# What privacy was spent", "", "| | |", "|---|---|", *rows])
        create_markdown_artifact(table, key="privacy-statement", description=str(STATEMENT))
    if (root / METRICS).exists():
        metrics = read_json(root / METRICS)
        create_table_artifact(metric_rows(metrics), key="metrics", description=str(metrics["release"]))
    if branch is not None:
        where = f"`git fetch origin {branch} && git checkout FETCH_HEAD && dvc pull`"
        lines = ["# What the run left", "", f"Branch `{branch}`: {where}; the report is `{REPORT}`."]
        create_markdown_artifact("\n".join(lines), key="results", description=branch)
    elif (root / REPORT).exists():
        create_link_artifact((root / REPORT).as_uri(), link_text=str(REPORT), key="report")


def metric_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for every kind of question: accuracy of both models, %, and the rows that were counted."""

    def percent(found: Mapping[str, Any]) -> float | None:
        return None if found["accuracy"] is None else round(100 * found["accuracy"], 1)

    return [
        {
            "kind": kind,
            "zero-shot, %": percent(metrics["zero_shot"][kind]),
            "fine-tuned, %": percent(tuned),
            "rows": tuned["rows"],
        }
        for kind, tuned in metrics["tuned"].items()
    ]
