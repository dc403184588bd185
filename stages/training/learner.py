"""A model with adapters, the rows it learns from, and the processes and machine that share the work.

Shapes: R rows in a micro-batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.core.ranks import ALONE, Ranks
from stages.core.speed import Speed
from stages.privacy.segments import Segments
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import EncodedSet, collate
from stages.training.micro_batches import Bounds, MicroBatch, Units, micro_batches


@dataclass(frozen=True)
class Learner:
    """What a step needs to look at units; it decides nothing about privacy."""

    model: torch.nn.Module
    family: Any
    trainable: TrainableLayers
    encoded: EncodedSet
    speed: Speed
    ranks: Ranks = ALONE
    bounds: Bounds | None = None
    """How much goes through the model at once; None: what ``speed`` says of rows and tokens."""

    @property
    def device(self) -> str:
        """Return where the model is."""
        return self.speed.device

    def losses(self, rows: Sequence[int]) -> Tensor:
        """Return the loss of each row, shape (R,)."""
        losses_R: Tensor = self.family.row_losses(self.model, collate(self.encoded, rows).to(self.device))
        return losses_R

    def shared_micro_batches(self, units: Units) -> list[MicroBatch]:
        """Return this process's share of the units in groups that fit."""
        bounds = self.bounds or Bounds(self.speed.micro_batch, self.speed.micro_batch_tokens)
        lengths = self.encoded.rows.lengths()
        return list(micro_batches(self.ranks.share(units), lengths, bounds))

    def segments(self, batch: MicroBatch) -> Segments:
        """Return which unit every row and every image of a batch belongs to."""
        images = [len(self.encoded.rows[row].images) for row in batch.rows]
        return Segments.of(batch.units, row=batch.unit_of_row, image=np.repeat(batch.unit_of_row, images))
