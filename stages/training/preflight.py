"""The first act of a private run: the DP engine is tried on the run's own model, on synthetic rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.core.files import write_json
from stages.privacy.alone import loss_preflight
from stages.privacy.preflight import Subject, preflight
from stages.privacy.segments import Segments
from stages.trainable.reversible_chain import Chain, chain_of, measured
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch
from stages.training.synthetic_rows import small_shapes, synthetic_learner

REBUILT = 1e-3
"""Largest relative error of a rebuilt layer input."""


def require_exact(learner: Learner, diagnostics: Path | None) -> None:
    """Refuse a model on which per-unit gradients are not exact; the measurements go to ``diagnostics``."""
    subject, chain = synthetic_subject(learner), chain_of(learner.model)
    report = preflight(subject)
    found, reasons = report.to_json(), list(report.reasons)
    if chain is not None:
        error = rebuilt_error(chain, subject)
        found |= {"max_rebuilt_error": error, "deviation_of_the_start": chain.deviation}
        if not error <= REBUILT:
            reasons.append(
                f"layer inputs are rebuilt with an error of {error:.2g} (tolerance {REBUILT:g}): lower "
                "trainable.reversible.segment, or raise trainable.reversible.scale"
            )
    _require(found, reasons, diagnostics, "the DP engine is not exact on this model")


def require_alone(learner: Learner, diagnostics: Path | None) -> None:
    """Refuse a model on which rows see each other; the measurements go to ``diagnostics``."""
    report = loss_preflight(synthetic_subject(learner))
    _require(report.to_json(), report.reasons, diagnostics, "this model's losses couple its rows")


def _require(found: dict[str, Any], reasons: Sequence[str], diagnostics: Path | None, fault: str) -> None:
    if diagnostics is not None:
        verdict = "fail" if reasons else "pass"
        write_json(diagnostics, {**found, "reasons": list(reasons), "verdict": verdict})
    if reasons:
        raise ValueError(f"{fault}, so nothing was trained: {'; '.join(reasons)}")


def rebuilt_error(chain: Chain, subject: Subject) -> float:
    """Return the largest relative error of a layer input that the backward pass would rebuild."""
    with measured(chain) as errors, torch.no_grad():
        subject.losses([row for rows in subject.rows_of_unit for row in rows])
    return max(errors)


def synthetic_subject(learner: Learner) -> Subject:
    """Return the learner on four random rows of three units, the first with twice the visual tokens."""
    shapes = small_shapes(learner.encoded, 4)
    shapes[0] = replace(shapes[0], slots=2 * shapes[0].slots)
    synthetic = synthetic_learner(learner, shapes)

    def segments(rows: Sequence[int], owners: Sequence[int]) -> Segments:
        return synthetic.segments(MicroBatch(list(rows), np.array(owners), owners[-1] + 1))

    return Subject(learner.model, learner.trainable, [[0, 1], [2], [3]], synthetic.losses, segments)
