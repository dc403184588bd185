"""How well a model answers when it sees pruned images, measured on public records only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

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


def fidelity_of(pruned: Fidelity, full: Fidelity) -> float:
    """Return the fraction of the all-token accuracy that pruning keeps; 1 where there was none to lose."""
    return pruned.accuracy / full.accuracy if full.accuracy > 0 else 1.0


@dataclass(frozen=True)
class PublicSample:
    """Public rows and what the tower saw of their images, before any pruning."""

    loaded: Loaded
    rows: Sequence[Row]
    images_of_row: Sequence[tuple[int, ...]]
    seen: Seen
    micro_batch: int

    @classmethod
    def of(
        cls, loaded: Loaded, rows: Sequence[Row], layers: tuple[int, ...], micro_batch: int
    ) -> "PublicSample":
        """Run the tower on the images of ``rows``, once, and score patches by ``layers``.

        Images go through in batches, which is allowed because they are public and nothing of them is kept.
        """
        loaded.family.require_prunable(loaded.model)
        images, images_of_row = distinct_images(rows)
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
        family, model = self.loaded.family, self.loaded.model
        answered, losses = [], []
        with torch.no_grad():
            for rows in self._batches():
                batch = collate(encoded, rows).to(model.device)
                answered.append(family.rows_answered(model, batch))
                losses.append(family.row_losses(model, batch))
        return Fidelity(
            kept=encoded.features_ISD.shape[1],
            accuracy=float(torch.cat(answered).double().mean()),
            log_likelihood=-float(torch.cat(losses).double().mean()),
        )

    def _encode(self, rule: Rule) -> EncodedSet:
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
