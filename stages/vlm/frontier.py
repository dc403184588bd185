"""What a rule keeps of a model's answers under a budget, and what a step then costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

from torch import Tensor

from stages.core.progress import Advance
from stages.records.encoded import EncodedSet
from stages.vlm.fidelity import Answers, Fidelity, Sample, divergence_of, fidelity_of
from stages.vlm.selection import EVERY_TOKEN, Rule
from stages.vlm.step_work import StepWork

_COLUMNS = (
    "select",
    "merge",
    "kept",
    "fidelity",
    "accuracy",
    "log_likelihood",
    "divergence",
    "step",
    "bytes",
)


@dataclass
class _Tally:
    """What is known of one rule, batch after batch."""

    answers: list[Answers] = field(default_factory=list)
    slots: dict[bytes, int] = field(default_factory=dict)
    """Kept of each image."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of each row."""
    divergence: float = 0.0
    words: int = 0

    def add(self, part: Sample, encoded: EncodedSet, given: tuple[Tensor, Tensor], expected: Tensor) -> None:
        """Add a batch of rows, and their logits and labels."""
        self.answers.append(Answers.of(*given))
        self.slots |= zip(part.images, encoded.features.slots_I.tolist(), strict=True)
        self.lengths += encoded.rows.lengths().tolist()
        divergence, words = divergence_of(*given, expected)
        self.divergence += divergence
        self.words += words

    def fidelity(self) -> Fidelity:
        return Fidelity.of(Answers.joined(self.answers), list(self.slots.values()))


@dataclass(frozen=True)
class Frontier:
    """Public rows answered with all tokens and under every rule."""

    full: dict[str, Any]
    """What all tokens give."""
    found: list[dict[str, Any]]
    """Each rule and what it gives.

    ``fidelity``: share of the all-token accuracy; ``divergence``: of the answer's words from those of all
    tokens, in nats; ``step``: arithmetic of a row in a training step as a share of that with all tokens.
    """
    longest: Sequence[int]
    """The rows, that with most unpruned tokens first."""

    @classmethod
    def of(cls, sample: Sample, rules: Sequence[Rule], work: StepWork, advance: Advance) -> "Frontier":
        """Answer the rows, each batch once with all tokens and once under every rule.

        ``advance`` is told how many passes of a batch through the model are done.
        """
        whole, tallies, done = _Tally(), [_Tally() for _ in rules], 0
        for part in sample.parts():
            every, rows = part.encode(EVERY_TOKEN), range(len(part.rows))
            given = part.logits(every, rows)
            whole.add(part, every, given, given[0])
            for rule, tally in zip(rules, tallies, strict=True):
                encoded = part.encode(rule)
                tally.add(part, encoded, part.logits(encoded, rows), given[0])
                done += 1
                advance(done)
        full, length = whole.fidelity(), mean(whole.lengths)
        found = []
        for rule, tally in zip(rules, tallies, strict=True):
            got, own = tally.fidelity(), mean(tally.lengths)
            found.append(
                {
                    **asdict(rule),
                    **asdict(got),
                    "fidelity": fidelity_of(got.accuracy, full.accuracy),
                    "divergence": tally.divergence / tally.words,
                    "row_tokens": own,
                    "step": work.multiplications(own) / work.multiplications(length),
                }
            )
        longest = sorted(range(len(sample.rows)), key=lambda row: -whole.lengths[row])
        return cls({**asdict(full), "row_tokens": length}, found, longest)


def frontier_table(full: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """Return the frontier as CSV, a line a rule and budget, behind them all tokens."""
    columns = [name for name in _COLUMNS if name in found[0]]
    everything = {"select": "all", "merge": "none", "fidelity": 1.0, "divergence": 0.0, "step": 1.0, **full}
    rows = [*found, *([everything] if full["kept"] is not None else [])]
    lines = [",".join(_shown(row[name]) for name in columns) for row in rows]
    return "\n".join([",".join(columns), *lines]) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
