"""The ways to train that a budget compares: each a batch and a number of steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.budget.books import Allowed, Books
from pipeline.budget.memory import Memory
from pipeline.budget.question import Question
from pipeline.budget.timing import Timing
from pipeline.too_small import noise_over_signal
from stages.privacy.plan import Plan
from stages.reporting.arithmetic import epsilon_by_step

PARTS = 4
"""Epsilon is told after each quarter of the steps."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A batch and a number of steps, with all that they cost."""

    batch: int
    steps: int
    plan: Plan
    spent: tuple[dict[str, float], ...]
    """Steps and epsilon after them, the first step and the last included."""
    seconds: float | None
    """Of all steps; None: not predicted."""
    peak_gib: float | None
    """None: not predicted."""
    allowed: Allowed

    @property
    def work(self) -> int:
        """Return how many units all steps look at, as expected."""
        return self.batch * self.steps

    def of_a_step(self, weights: int) -> float:
        """Return the noise of a step over the largest signal it can have (``noise_over_signal``)."""
        return noise_over_signal(self.plan, weights)

    def of_the_run(self, weights: int) -> float:
        """Return the noise of all steps added up over the largest signal of all: a step's over sqrt(T).

        Independent noise adds up as the root of the steps, a signal that keeps its direction as the steps.
        """
        return self.of_a_step(weights) / math.sqrt(self.steps)

    def to_json(self, weights: tuple[int, ...]) -> dict[str, Any]:
        """Return the stored form."""
        return {
            "batch": self.batch,
            "steps": self.steps,
            "rate": self.plan.sampling.rate,
            "noise_multiplier": self.plan.noise_multiplier,
            "epsilon": self.plan.epsilon,
            "epsilon_by_step": list(self.spent),
            "noise_to_signal": [
                {"weights": count, "step": self.of_a_step(count), "run": self.of_the_run(count)}
                for count in weights
            ],
            "seconds": self.seconds,
            "peak_gib": self.peak_gib,
            "ledger": {"passes": self.allowed.passes, "refused": self.allowed.refused},
        }


def options_of(
    question: Question, timing: Timing, memory: Memory, books: Books, done: Callable[[int], None]
) -> tuple[Option, ...]:
    """Return every combination of batch and steps; ``done`` is told how many there are already."""
    found: list[Option] = []
    for batch in question.batches:
        for steps in question.steps:
            plan = question.plan(question.sampling(batch, steps))
            found.append(
                Option(
                    batch=batch,
                    steps=steps,
                    plan=plan,
                    spent=tuple(epsilon_by_step(plan, PARTS)),
                    seconds=timing.seconds(batch, steps),
                    peak_gib=memory.peak_gib(batch),
                    allowed=books.allow(plan),
                )
            )
            done(len(found))
    return tuple(found)
