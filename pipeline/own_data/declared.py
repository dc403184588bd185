"""What only a person can decide: whose privacy it is, how many they may be, and what may be spent."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import typer

from stages.privacy.population import Population

Answer = TypeVar("Answer", str, int, float)
LARGEST_EPSILON = 20.0
"""Beyond it a guarantee says nothing that a person would call protection; asked for, it is a slip."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Public constants that no figure of the records decides."""

    population: Population
    about: int
    """How many units there are now, as a round figure that may be public; no guarantee hangs on it."""
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        """Refuse a promise that is none."""
        if not 1 <= self.about <= self.population.max_units:
            raise ValueError(
                f"--units-about {self.about} must lie between 1 and --max-units {self.population.max_units}"
            )
        if not 0 < self.epsilon <= LARGEST_EPSILON:
            raise ValueError(
                f"--epsilon must lie above 0 and be at most {LARGEST_EPSILON:g}, got {self.epsilon:g}"
            )
        if not 0 < self.delta < 1 / self.population.max_units:
            raise ValueError(
                f"--delta must lie above 0 and below 1 / max_units, {1 / self.population.max_units:.2g}, got "
                f"{self.delta:g}: at that delta a whole person may be given away"
            )


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the command line says; None is asked for on a terminal."""

    population: str | None
    unit_in_words: str | None
    max_units: int | None
    about: int | None
    epsilon: float | None
    delta: float | None
    limit: float | None


def declared(said: Said, unit: str) -> Declared:
    """Return what a person has declared; what was not said is asked for, and without a terminal refused."""
    ask = _Asker(said, sys.stdin.isatty())
    name = ask(said.population, "--population", "Name of the population that budgets belong to", str, None)
    words = ask(said.unit_in_words, "--unit-in-words", f"What one '{unit}' is, in words", str, unit)
    most = ask(
        said.max_units,
        "--max-units",
        "A public bound on their number, for years to come, not a count",
        int,
        None,
    )
    about = ask(
        said.about,
        "--units-about",
        "About how many there are, a round figure that may be public: it decides the sampling rate",
        int,
        most,
    )
    population = Population(name=name, public=False, max_units=most, unit=words)
    epsilon = ask(said.epsilon, "--epsilon", "Epsilon of this training", float, 8.0)
    delta = ask(said.delta, "--delta", "Delta, far below 1 / max_units", float, suggested_delta(most))
    return Declared(population=population, about=about, epsilon=epsilon, delta=delta)


def declared_limit(said: Said, least: float) -> float:
    """Return epsilon that all releases may spend together; ``least`` is what one training needs of it.

    A smaller one is a ValueError: the ledger would refuse even the first release.
    """
    ask = _Asker(said, sys.stdin.isatty())
    text = f"Epsilon that all releases on them may ever spend together, {least:g} for one like this"
    limit = ask(said.limit, "--limit", text, float, 2 * least)
    if not least <= limit < math.inf:
        raise ValueError(
            f"--limit {limit:g} admits not even this training: the ledger counts releases that are chosen "
            f"one after another, which takes {least:g} for one like this, so name that or more"
        )
    return limit


def suggested_delta(max_units: int) -> float:
    """Return the largest power of ten that is at most a tenth of ``1 / max_units``.

    >>> suggested_delta(6000), suggested_delta(10_000)
    (1e-05, 1e-05)
    """
    return float(f"1e-{len(str(max_units - 1)) + 1}")


class _Asker:
    """Asks for what the command line leaves out."""

    def __init__(self, said: Said, is_terminal: bool) -> None:
        """Ask on a terminal alone."""
        self._is_terminal = is_terminal

    def __call__(
        self,
        said: Answer | None,
        option: str,
        text: str,
        kind: Callable[[str], Answer],
        default: Answer | None,
    ) -> Answer:
        """Return what was said, or what a person answers; without a terminal a suggestion is no decision."""
        if said is not None:
            return said
        if not self._is_terminal:
            hint = "" if default is None else f", such as {default}"
            raise ValueError(f"{option} is missing, and only a person can decide it: {text}{hint}")
        answer: Answer = typer.prompt(text, default=default, type=kind)
        return answer
