"""The first act of a private run: the DP engine is tried on the run's own model, on synthetic rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stages.core.files import write_json
from stages.privacy.preflight import Subject, preflight
from stages.privacy.segments import Segments
from stages.records.encoded import IGNORED, EncodedSet, TokenRow
from stages.training.estimators import Learner

_WORDS = 6


def require_exact(learner: Learner, diagnostics: Path) -> None:
    """Refuse a model on which per-unit gradients are not exact; the measurements go to ``diagnostics``."""
    report = preflight(synthetic_subject(learner))
    write_json(diagnostics, report.to_json())
    if report.reasons:
        raise ValueError(
            f"the DP engine is not exact on this model, so nothing was trained: {'; '.join(report.reasons)}"
        )


def synthetic_subject(learner: Learner) -> Subject:
    """Return the learner on four random rows of three units, shaped like its records and drawn from none."""
    slots, width = learner.encoded.features_ISD.shape[1:]
    images = 1 if slots else 0
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5 * images, slots, width, generator=generator)
    encoded = replace(
        learner.encoded,
        features_ISD=features.to(learner.encoded.features_ISD.dtype),
        rows=tuple(_row(learner, row, slots, images, generator) for row in range(4)),
    )
    synthetic = replace(learner, encoded=encoded)

    def segments(rows: Sequence[int], owners: Sequence[int]) -> Segments:
        return synthetic.segments(rows, np.array(owners), owners[-1] + 1)

    return Subject(learner.model, learner.trainable, [[0, 1], [2], [3]], synthetic.losses, segments)


def _row(learner: Learner, row: int, slots: int, images: int, generator: torch.Generator) -> TokenRow:
    vocabulary = learner.model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    drawn = torch.randint(vocabulary, (_WORDS + row,), generator=generator).tolist()
    words = tuple(0 if token == _image(learner.encoded) else token for token in drawn)
    shown = ((0, 1), (2,), (3,), (4,))[row][: 2 * images]  # the first row has two images
    ids = (words[0], *(_image(learner.encoded),) * (slots * len(shown)), *words[1:])
    labels = (*(IGNORED,) * (len(ids) - 3), *ids[-3:])
    return TokenRow(ids, labels, tuple(range(len(ids))), shown, max(0, row - 1), 0)


def _image(encoded: EncodedSet) -> int:
    return encoded.image_token_id
