"""How well a model answers when it sees pruned images.

Shapes: R rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.records.encoded import EncodedSet, collate
from stages.records.row import Row
from stages.vlm.encoder import Rule, assemble, distinct_images, pixels_of
from stages.vlm.family import Loaded
from stages.vlm.llava import Seen


@dataclass(frozen=True)
class Fidelity:
    """Answers under one rule."""

    kept: int
    """Visual tokens that the language model sees of one image."""
    accuracy: float
    """Fraction of rows answered exactly."""
    log_likelihood: float
    """Mean log-probability of an answer token."""


@dataclass(frozen=True)
class Answers:
    """What each row's answer was worth, in float64."""

    is_right_R: Tensor
    """1 where greedy decoding would answer exactly, else 0."""
    log_likelihood_R: Tensor
    """Mean log-probability of an answer token."""


def fidelity_of(accuracy: float, full_accuracy: float) -> float:
    """Return the fraction of the all-token accuracy that pruning keeps; 1 where there was none to lose."""
    return accuracy / full_accuracy if full_accuracy > 0 else 1.0


@dataclass(frozen=True)
class Sample:
    """Rows and what the tower saw of their images, before any pruning.

    They go through the model in batches, so the rows must all be public, or all of one unit.
    """

    loaded: Loaded
    rows: Sequence[Row]
    images_of_row: Sequence[tuple[int, ...]]
    seen: Seen | None
    """None where no row has an image."""
    micro_batch: int

    @classmethod
    def of(cls, loaded: Loaded, rows: Sequence[Row], layers: tuple[int, ...], micro_batch: int) -> "Sample":
        """Run the tower on the images of ``rows``, once, and score patches by ``layers``."""
        loaded.family.require_prunable(loaded.model)
        images, images_of_row = distinct_images(rows)
        if not images:
            return cls(loaded, rows, images_of_row, None, micro_batch)
        parts = []
        for start in range(0, len(images), micro_batch):
            pixels = [pixels_of(loaded, image) for image in images[start : start + micro_batch]]
            parts.append(loaded.family.look(loaded.model, torch.cat(pixels), layers))
        seen = Seen(
            torch.cat([part.hidden_BTD for part in parts]),
            {layer: torch.cat([part.scores[layer] for part in parts]) for layer in layers},
            {layer: torch.cat([part.metrics[layer] for part in parts]) for layer in layers},
        )
        return cls(loaded, rows, images_of_row, seen, micro_batch)

    def measure(self, rule: Rule) -> Fidelity:
        """Answer the rows under ``rule``."""
        encoded = self._encode(rule)
        answers = self._answers(encoded)
        return Fidelity(
            kept=encoded.features_ISD.shape[1],
            accuracy=float(answers.is_right_R.mean()),
            log_likelihood=float(answers.log_likelihood_R.mean()),
        )

    def answers(self, rule: Rule) -> Answers:
        """Answer each row under ``rule``."""
        return self._answers(self._encode(rule))

    def _answers(self, encoded: EncodedSet) -> Answers:
        family, model = self.loaded.family, self.loaded.model
        answered, losses = [], []
        with torch.no_grad():
            for rows in self._batches():
                batch = collate(encoded, rows).to(model.device)
                answered.append(family.rows_answered(model, batch))
                losses.append(family.row_losses(model, batch))
        return Answers(torch.cat(answered).double(), -torch.cat(losses).double())

    def _encode(self, rule: Rule) -> EncodedSet:
        if self.seen is None:
            return assemble(self.loaded, self.rows, self.images_of_row, torch.zeros(0, 0, 0), [])
        kept = rule.keep(self.seen)
        sources = [tuple(source) for source in kept.source_BS.tolist()]
        return assemble(self.loaded, self.rows, self.images_of_row, kept.features_BSD.cpu(), sources)

    def _batches(self) -> Iterator[range]:
        for start in range(0, len(self.rows), self.micro_batch):
            yield range(start, min(start + self.micro_batch, len(self.rows)))


def choose_public_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Return ``count`` rows (all, if fewer) in an order drawn from the public seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [rows[index] for index in order[:count]]
