"""Random rows shaped like a learner's records and drawn from none.

They serve to try the engine, to measure memory, and to run where a process has no units of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from stages.records.encoded import IGNORED, EncodedSet, TokenRow
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch

_WORDS = 6


@dataclass(frozen=True)
class Shape:
    """What one row is made of: tokens of text, how many of them are learned, and images."""

    words: int
    learned: int
    images: int


def synthetic_learner(learner: Learner, shapes: Sequence[Shape]) -> Learner:
    """Return the learner over random rows of these shapes, each a unit of its own."""
    slots, width = learner.encoded.features_ISD.shape[1:]
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(sum(shape.images for shape in shapes), slots, width, generator=generator)
    first = np.cumsum([0, *(shape.images for shape in shapes)]).tolist()
    encoded = replace(
        learner.encoded,
        features_ISD=features.to(learner.encoded.features_ISD.dtype),
        rows=tuple(
            _row(learner, unit, shape, first[unit], slots, generator) for unit, shape in enumerate(shapes)
        ),
    )
    return replace(learner, encoded=encoded)


def small_shapes(encoded: EncodedSet, rows: int) -> list[Shape]:
    """Return shapes of short rows of unequal lengths, with images where the records have any."""
    images = int(encoded.features_ISD.shape[1] > 0)
    return [Shape(_WORDS + row, 3, images) for row in range(rows)]


def idle_batch(learner: Learner) -> tuple[Learner, MicroBatch]:
    """Return a learner and a batch to run where a process has no units of its own."""
    return synthetic_learner(learner, small_shapes(learner.encoded, 1)), MicroBatch([0], np.array([0]), 1)


def _row(
    learner: Learner, unit: int, shape: Shape, first: int, slots: int, generator: torch.Generator
) -> TokenRow:
    vocabulary = learner.model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    image = learner.encoded.image_token_id
    drawn = torch.randint(vocabulary, (shape.words,), generator=generator).tolist()
    words = tuple(0 if token == image else token for token in drawn)
    ids = (words[0], *(image,) * (slots * shape.images), *words[1:])
    labels = (*(IGNORED,) * (len(ids) - shape.learned), *ids[len(ids) - shape.learned :])
    shown = tuple(range(first, first + shape.images))
    return TokenRow(ids, labels, tuple(range(len(ids))), shown, unit, 0)
