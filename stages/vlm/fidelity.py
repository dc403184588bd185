"""How well a model answers when it sees pruned images.

Shapes: R rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from stages.records.encoded import IGNORED, EncodedSet, collate
from stages.records.features import Features
from stages.records.row import Row
from stages.vlm.encoder import assemble, distinct_images, prepare
from stages.vlm.loaded import Loaded
from stages.vlm.seen import Frame, Seen, in_runs
from stages.vlm.selection import Rule
from stages.vlm.tokens import TokenSequence, tokenise


@dataclass(frozen=True)
class Fidelity:
    """Answers under one rule."""

    kept: float
    """Visual tokens that the language model sees of one image, on average."""
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
    images: Sequence[bytes]
    images_of_row: Sequence[tuple[int, ...]]
    seen: Sequence[tuple[Seen, Frame]]
    """What the tower made of each image, and how a row writes it."""
    micro_batch: int

    @classmethod
    def of(cls, loaded: Loaded, rows: Sequence[Row], layers: tuple[int, ...], micro_batch: int) -> "Sample":
        """Run the tower on the images of ``rows``, once, and score patches by ``layers``."""
        loaded.family.require_prunable(loaded.model)
        images, images_of_row = distinct_images(rows)
        seen = []
        for image in images:
            prepared = prepare(loaded, image)
            seen.append((loaded.family.look(loaded.model, prepared, layers), prepared.frame))
        return cls(loaded, rows, images, images_of_row, seen, micro_batch)

    def measure(self, rule: Rule) -> Fidelity:
        """Answer the rows under ``rule``."""
        return self.fidelity(self.encode(rule))

    def fidelity(self, encoded: EncodedSet) -> Fidelity:
        """Answer the rows as they were encoded under some rule."""
        answers = self._answers(encoded)
        slots_I = encoded.features.slots_I
        kept = float(slots_I.mean()) if len(slots_I) else 0.0
        return Fidelity(
            kept=int(kept) if kept.is_integer() else kept,
            accuracy=float(answers.is_right_R.mean()),
            log_likelihood=float(answers.log_likelihood_R.mean()),
        )

    @torch.no_grad()
    def divergence(self, encoded: EncodedSet, whole: EncodedSet) -> float:
        """Return the mean Kullback-Leibler divergence, in nats, of the answer's words under two rules."""
        family, model = self.loaded.family, self.loaded.model
        total, places = 0.0, 0
        for rows in self._batches():
            logits, labels_RA = family.learned_logits(model, collate(encoded, rows).to(model.device))
            expected, _ = family.learned_logits(model, collate(whole, rows).to(model.device))
            divergence_RA = kl_div(
                logits.double().log_softmax(-1),
                expected.double().log_softmax(-1),
                reduction="none",
                log_target=True,
            ).sum(dim=-1)
            is_learned_RA = labels_RA != IGNORED
            total += float(divergence_RA[is_learned_RA].sum())
            places += int(is_learned_RA.sum())
        return total / places

    def answers(self, rule: Rule) -> Answers:
        """Answer each row under ``rule``."""
        return self._answers(self.encode(rule))

    def _answers(self, encoded: EncodedSet) -> Answers:
        family, model = self.loaded.family, self.loaded.model
        answered, losses = [], []
        with torch.no_grad():
            for rows in self._batches():
                batch = collate(encoded, rows).to(model.device)
                answered.append(family.rows_answered(model, batch))
                losses.append(family.row_losses(model, batch))
        return Answers(torch.cat(answered).double(), -torch.cat(losses).double())

    def encode(self, rule: Rule) -> EncodedSet:
        """Return the rows under ``rule``."""
        kept = [in_runs(*rule.keep(seen), frame) for seen, frame in self.seen]
        features = Features.of([image.features_SD for image in kept])
        return assemble(
            self.loaded, self.rows, self._tokens, self.images_of_row, kept.__getitem__, features, rule
        )

    @cached_property
    def _tokens(self) -> list[TokenSequence]:
        """Unpruned tokens of every row."""
        frames = [frame for _, frame in self.seen]
        return [
            tokenise(row, self.loaded, [frames[image] for image in images])
            for row, images in zip(self.rows, self.images_of_row, strict=True)
        ]

    def _batches(self) -> Iterator[range]:
        for start in range(0, len(self.rows), self.micro_batch):
            yield range(start, min(start + self.micro_batch, len(self.rows)))


def choose_public_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Return ``count`` rows (all, if fewer) in an order drawn from the public seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [rows[index] for index in order[:count]]
