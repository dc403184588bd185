"""How well a model answers when it sees pruned images.

Shapes: R rows, A learned places of the row with most, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from stages.records.encoded import EncodedSet, collate
from stages.records.features import Features
from stages.records.row import Row, Shown
from stages.records.token_rows import IGNORED, TokenRows
from stages.vlm.encoder import assemble, distinct_images, encode_rows, image_token_id, prepare
from stages.vlm.families.family import answered_of, losses_of
from stages.vlm.loaded import Loaded
from stages.vlm.seen import Frame, Seen, in_runs
from stages.vlm.selection import Rule
from stages.vlm.tokens import TokenSequence, tokenise_rows


@dataclass(frozen=True)
class Fidelity:
    """Answers under one rule."""

    kept: float
    """Visual tokens that the language model sees of one image, on average."""
    accuracy: float
    """Fraction of rows answered exactly."""
    log_likelihood: float
    """Mean log-probability of an answer token."""

    @classmethod
    def of(cls, answers: "Answers", slots: Sequence[int]) -> "Fidelity":
        """Return what rows' answers come to; ``slots`` are kept of each image."""
        kept = sum(slots) / len(slots) if slots else 0.0
        return cls(
            kept=int(kept) if kept.is_integer() else kept,
            accuracy=float(answers.is_right_R.mean()),
            log_likelihood=float(answers.log_likelihood_R.mean()),
        )


@dataclass(frozen=True)
class Answers:
    """What each row's answer was worth, in float64."""

    is_right_R: Tensor
    """1 where greedy decoding would answer exactly, else 0."""
    log_likelihood_R: Tensor
    """Mean log-probability of an answer token."""

    @classmethod
    def of(cls, logits_RAV: Tensor, labels_RA: Tensor) -> "Answers":
        """Return what logits at the learned places say."""
        return cls(answered_of(logits_RAV, labels_RA).double(), -losses_of(logits_RAV, labels_RA).double())

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """Return the answers of all rows in order."""
        return cls(
            torch.cat([part.is_right_R for part in parts]),
            torch.cat([part.log_likelihood_R for part in parts]),
        )


def fidelity_of(accuracy: float, full_accuracy: float) -> float:
    """Return the fraction of the all-token accuracy that pruning keeps; 1 where there was none to lose."""
    return accuracy / full_accuracy if full_accuracy > 0 else 1.0


def divergence_of(logits_RAV: Tensor, labels_RA: Tensor, expected_RAV: Tensor) -> tuple[float, int]:
    """Return the Kullback-Leibler divergence from what is expected, summed over words, and their number."""
    divergence_RA = kl_div(
        logits_RAV.double().log_softmax(-1),
        expected_RAV.double().log_softmax(-1),
        reduction="none",
        log_target=True,
    ).sum(dim=-1)
    is_learned_RA = labels_RA != IGNORED
    return float(divergence_RA[is_learned_RA].sum()), int(is_learned_RA.sum())


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
        return Fidelity.of(self._answers(encoded), encoded.features.slots_I.tolist())

    def divergence(self, encoded: EncodedSet, whole: EncodedSet) -> float:
        """Return the mean Kullback-Leibler divergence, in nats, of the answer's words under two rules."""
        total, words = 0.0, 0
        for rows in self._batches():
            expected_RAV, _ = self.logits(whole, rows)
            apart, many = divergence_of(*self.logits(encoded, rows), expected_RAV)
            total += apart
            words += many
        return total / words

    def answers(self, rule: Rule) -> Answers:
        """Answer each row under ``rule``."""
        return self._answers(self.encode(rule))

    def _answers(self, encoded: EncodedSet) -> Answers:
        return Answers.joined([Answers.of(*self.logits(encoded, rows)) for rows in self._batches()])

    @torch.no_grad()
    def logits(self, encoded: EncodedSet, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return logits (R, A, V) and labels (R, A) at the learned places of some rows, in one pass."""
        model = self.loaded.model
        found: tuple[Tensor, Tensor] = self.loaded.family.learned_logits(
            model, collate(encoded, rows).to(model.device)
        )
        return found

    def parts(self) -> Iterator["Sample"]:
        """Yield the rows batch by batch, each a sample with its own images."""
        for rows in self._batches():
            yield self.of_rows(rows)

    def of_rows(self, rows: Sequence[int]) -> "Sample":
        """Return some of the rows and their images."""
        shown = sorted({image for row in rows for image in self.images_of_row[row]})
        place = {image: index for index, image in enumerate(shown)}
        return replace(
            self,
            rows=[self.rows[row] for row in rows],
            images=[self.images[image] for image in shown],
            images_of_row=[tuple(place[image] for image in self.images_of_row[row]) for row in rows],
            seen=[self.seen[image] for image in shown],
        )

    def encode(self, rule: Rule) -> EncodedSet:
        """Return the rows under ``rule``."""
        kept = [in_runs(*rule.keep(seen), frame) for seen, frame in self.seen]
        features, kinds = (
            Features.of([image.features_SD for image in kept]),
            sorted({row.kind for row in self.rows}),
        )
        rows = encode_rows(self._shown(), self._tokens, kept.__getitem__, kinds, image_token_id(self.loaded))
        return assemble(self.loaded, TokenRows.of(rows), features, kinds, rule)

    @cached_property
    def _tokens(self) -> list[TokenSequence]:
        """Unpruned tokens of every row."""
        return [*tokenise_rows(self._shown(), self.loaded, lambda image: self.seen[image][1])]

    def _shown(self) -> Iterator[Shown]:
        return zip(self.rows, self.images_of_row, strict=True)

    def batches(self) -> int:
        """Return the number of ``parts``."""
        return len(range(0, len(self.rows), self.micro_batch))

    def _batches(self) -> Iterator[range]:
        for start in range(0, len(self.rows), self.micro_batch):
            yield range(start, min(start + self.micro_batch, len(self.rows)))


def choose_public_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Return ``count`` rows (all, if fewer) in an order drawn from the public seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [rows[index] for index in order[:count]]
