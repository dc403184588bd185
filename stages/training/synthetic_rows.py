"""Random rows shaped like a learner's records and drawn from none.

They serve to try the engine, to measure memory, and to run where a process has no units of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from stages.records.encoded import EncodedSet
from stages.records.features import Features
from stages.records.token_rows import IGNORED, TokenRow, TokenRows
from stages.training.fake_tensors import holds_values
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch

_WORDS = 6
_SLOTS = 64
"""Most visual tokens of a short row."""


@dataclass(frozen=True)
class Shape:
    """What one row is made of: tokens of text, how many of them are learned, and visual tokens."""

    words: int
    learned: int
    slots: int


def synthetic_learner(learner: Learner, shapes: Sequence[Shape]) -> Learner:
    """Return the learner over random rows of these shapes, each a unit of its own."""
    real = learner.encoded.features
    generator = torch.Generator().manual_seed(0)
    shown = np.array([shape.slots for shape in shapes if shape.slots], dtype=np.int64)
    if holds_values(learner.model):
        drawn = torch.randn(int(shown.sum()), real.width, generator=generator).to(real.dtype)
        features = Features.in_order((drawn,) if len(shown) else (), shown)
    else:  # all images are one, for nothing of it is looked at
        weight = next(learner.model.parameters())
        part = weight.new_zeros(int(shown.max(initial=0)), real.width, dtype=real.dtype)
        features = Features((part,), np.zeros_like(shown), np.zeros_like(shown), shown)
    first = np.cumsum([0, *(shape.slots > 0 for shape in shapes)]).tolist()
    encoded = replace(
        learner.encoded,
        features=features,
        rows=TokenRows.of(
            _row(learner, unit, shape, first[unit], generator) for unit, shape in enumerate(shapes)
        ),
    )
    return replace(learner, encoded=encoded)


def small_shapes(encoded: EncodedSet, rows: int) -> list[Shape]:
    """Return shapes of short rows of unequal lengths, with visual tokens where the records have any."""
    slots = int(encoded.features.slots_I.min(initial=_SLOTS)) if len(encoded.features) else 0
    return [Shape(_WORDS + row, 3, slots) for row in range(rows)]


def idle_batch(learner: Learner) -> tuple[Learner, MicroBatch]:
    """Return a learner and a batch to run where a process has no units of its own."""
    return synthetic_learner(learner, small_shapes(learner.encoded, 1)), MicroBatch([0], np.array([0]), 1)


def _row(learner: Learner, unit: int, shape: Shape, first: int, generator: torch.Generator) -> TokenRow:
    vocabulary = learner.model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    image = learner.encoded.image_token_id
    drawn = torch.randint(vocabulary, (shape.words,), generator=generator).tolist()
    words = tuple(0 if token == image else token for token in drawn)
    ids = (words[0], *(image,) * shape.slots, *words[1:])
    labels = (*(IGNORED,) * (len(ids) - shape.learned), *ids[len(ids) - shape.learned :])
    positions = (tuple(range(len(ids))),) * learner.encoded.rows.axes
    return TokenRow(ids, labels, positions, (first,) if shape.slots else (), unit, 0)
