"""What a rule keeps of a model's answers under a budget, and what a step then costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from stages.records.encoded import EncodedSet
from stages.vlm.fidelity import Fidelity, Sample, fidelity_of
from stages.vlm.selection import EVERY_TOKEN, Rule
from stages.vlm.step_work import StepWork

_COLUMNS = ("select", "merge", "kept", "fidelity", "accuracy", "log_likelihood", "divergence", "step")


@dataclass(frozen=True)
class Frontier:
    """Public rows answered with all tokens, to compare every rule with."""

    sample: Sample
    work: StepWork
    whole: EncodedSet
    full: Fidelity

    @classmethod
    def of(cls, sample: Sample, work: StepWork) -> "Frontier":
        """Answer the rows with all tokens."""
        whole = sample.encode(EVERY_TOKEN)
        return cls(sample, work, whole, sample.fidelity(whole))

    def every_token(self) -> dict[str, Any]:
        """Return what all tokens give."""
        return {**asdict(self.full), "row_tokens": _row_length(self.whole)}

    def measure(self, rule: Rule) -> dict[str, Any]:
        """Return the rule and what it gives.

        ``fidelity``: share of the all-token accuracy; ``divergence``: of the answer's words from those of all
        tokens, in nats; ``step``: arithmetic of a row in a training step as a share of that with all tokens.
        """
        encoded = self.sample.encode(rule)
        got, length = self.sample.fidelity(encoded), _row_length(encoded)
        return {
            **asdict(rule),
            **asdict(got),
            "fidelity": fidelity_of(got.accuracy, self.full.accuracy),
            "divergence": self.sample.divergence(encoded, self.whole),
            "row_tokens": length,
            "step": self.work.multiplications(length) / self.work.multiplications(_row_length(self.whole)),
        }


def frontier_table(full: dict[str, Any], found: Sequence[dict[str, Any]]) -> str:
    """Return the frontier as CSV, a line a rule and budget, behind them all tokens."""
    columns = [name for name in _COLUMNS if name in found[0]]
    everything = {"select": "all", "merge": "none", "fidelity": 1.0, "divergence": 0.0, "step": 1.0, **full}
    rows = [*found, *([everything] if full["kept"] is not None else [])]
    lines = [",".join(_shown(row[name]) for name in columns) for row in rows]
    return "\n".join([",".join(columns), *lines]) + "\n"


def _row_length(encoded: EncodedSet) -> float:
    return mean(len(row.input_ids) for row in encoded.rows)


def _shown(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
