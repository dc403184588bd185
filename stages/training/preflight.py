"""The first act of a private run: the DP engine is tried on the run's own model, on synthetic rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.core.files import write_json
from stages.privacy.alone import loss_preflight
from stages.privacy.preflight import Report, Subject, preflight
from stages.privacy.segments import Segments
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch
from stages.training.synthetic_rows import small_shapes, synthetic_learner


def require_exact(learner: Learner, diagnostics: Path | None) -> None:
    """Refuse a model on which per-unit gradients are not exact; the measurements go to ``diagnostics``."""
    _require(preflight(synthetic_subject(learner)), diagnostics, "the DP engine is not exact on this model")


def require_alone(learner: Learner, diagnostics: Path | None) -> None:
    """Refuse a model on which rows see each other; the measurements go to ``diagnostics``."""
    _require(loss_preflight(synthetic_subject(learner)), diagnostics, "this model's losses couple its rows")


def _require(report: Report, diagnostics: Path | None, fault: str) -> None:
    if diagnostics is not None:
        write_json(diagnostics, report.to_json())
    if report.reasons:
        raise ValueError(f"{fault}, so nothing was trained: {'; '.join(report.reasons)}")


def synthetic_subject(learner: Learner) -> Subject:
    """Return the learner on four random rows of three units, the first with twice the visual tokens."""
    shapes = small_shapes(learner.encoded, 4)
    shapes[0] = replace(shapes[0], slots=2 * shapes[0].slots)
    synthetic = synthetic_learner(learner, shapes)

    def segments(rows: Sequence[int], owners: Sequence[int]) -> Segments:
        return synthetic.segments(MicroBatch(list(rows), np.array(owners), owners[-1] + 1))

    return Subject(learner.model, learner.trainable, [[0, 1], [2], [3]], synthetic.losses, segments)
