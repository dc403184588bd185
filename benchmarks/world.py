"""Whom the attacks on tuned models ask about: members, canaries, secrets, and public people for shadows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.ledger.population_key import PopulationKey
from stages.records.canaries import CanaryParts, canary_rows, is_planted
from stages.records.row import Row, rows_by_unit
from stages.records.store import read_rows, read_units

RECORDS = Path("data/records")
REPEATS = (1, 4, 16)
"""How many units tell the same secret."""
LENGTH = 4
"""Words of a canary's answer and of a secret."""


@dataclass(frozen=True)
class Sizes:
    """How much is trained on and attacked."""

    units: int = 400
    """Half of them, by coins, are members."""
    canaries: int = 200
    guesses: int = 25
    """k+ and k-, fixed before anybody looks."""
    secrets: int = 4
    """Different ones for each number of repeats."""
    candidates: int = 127
    """Other answers that a secret is ranked among."""
    shadows: int = 3
    shadow_units: int = 200
    epsilons: tuple[float, ...] = (8.0, 1.0)
    steps: int = 150
    rate: float = 0.25
    """Few units seen 37 times each: a model without privacy learns some by heart, which the attacks have
    to show before that they show nothing of another model means anything."""


QUICK = Sizes(shadows=2, epsilons=(8.0,), steps=30)


@dataclass(frozen=True)
class World:
    """Everybody who may be trained on or asked about, as rows; who is in was decided by coins."""

    members: list[Row]
    others: list[Row]
    planted: list[Row]
    left_out: list[Row]
    secrets: list[Row]
    """One row a unit; units that share a secret come together, the fewest repeats first."""
    candidates: list[Row]
    """Of each secret in turn, the same question with other answers."""
    shadows: list[list[Row]]
    """Public rows, the training set of each shadow model."""

    def trained_on(self) -> list[Row]:
        """Return the rows of the model under attack."""
        return [*self.members, *self.planted, *self.secrets]

    def asked(self) -> list[Row]:
        """Return all rows whose losses the attacks look at."""
        return [*self.trained_on(), *self.others, *self.left_out, *self.candidates]


def world_of(sizes: Sizes, seed: int) -> World:
    """Draw units and toss coins."""
    dice = np.random.default_rng(seed)
    train, public = records_of_people("train"), records_of_people("public")
    members, others = _by_coins(_some_units(train, sizes.units, dice), dice)
    parts = CanaryParts.of(public)
    canaries = canary_rows(parts, sizes.canaries, rows_per_unit=1, length=LENGTH, seed=seed)
    key = PopulationKey(dice.bytes(32))
    planted = [row for row in canaries if is_planted(row.unit, key)]
    left_out = [row for row in canaries if not is_planted(row.unit, key)]
    secrets, candidates = _secrets(parts, sizes, seed)
    shadows = [
        [row for unit in _some_units(public, sizes.shadow_units, dice) for row in unit]
        for _ in range(sizes.shadows)
    ]
    return World(members, others, planted, left_out, secrets, candidates, shadows)


def records_of_people(name: str) -> list[Row]:
    """Return the rows of a record set of ``dvc repro``, without the canaries that it planted."""
    made_up = set(read_units(RECORDS / "canaries"))
    return [row for row in read_rows(RECORDS / name) if row.unit not in made_up]


def _some_units(rows: Sequence[Row], count: int, dice: np.random.Generator) -> list[list[Row]]:
    units = rows_by_unit(rows)
    chosen = dice.permutation(len(units))[:count]
    return [[rows[row] for row in units[unit]] for unit in chosen]


def _by_coins(units: Sequence[list[Row]], dice: np.random.Generator) -> tuple[list[Row], list[Row]]:
    """Return the rows of the units that are in, and of those that are out."""
    parts: tuple[list[Row], list[Row]] = ([], [])
    for unit, is_out in zip(units, dice.random(len(units)) < 0.5, strict=True):
        parts[int(is_out)].extend(unit)
    return parts


def _secrets(parts: CanaryParts, sizes: Sizes, seed: int) -> tuple[list[Row], list[Row]]:
    """Return secrets, a row for each unit that tells one, and the candidates of each."""
    secrets, candidates = [], []
    made: dict[str, Any] = {"rows_per_unit": 1, "length": LENGTH, "seed": seed}
    for repeats in REPEATS:
        for secret in canary_rows(parts, sizes.secrets, **made, name=f"secret told {repeats} times"):
            secrets += [
                replace(secret, id=f"{secret.unit}, {n}", unit=f"{secret.unit}, {n}") for n in range(repeats)
            ]
            others = canary_rows(parts, sizes.candidates, **made, name=f"not {secret.unit}")
            candidates += [
                replace(one, messages=(secret.messages[0], one.messages[1]), images=secret.images)
                for one in others
            ]
    return secrets, candidates
