"""Who looks for faults of the engine."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch

from benchmarks.detectors import (
    ALARM,
    are_independent,
    batch_size_pvalue,
    has_scale,
    rate_pvalue,
    together_pvalue,
    unit_count_pvalue,
)
from benchmarks.faulty_engine import ROWS
from benchmarks.white_box import CLIP, Trial, audit_run, learner_of
from stages.core.ranks import Ranks
from stages.ledger.population_key import PopulationKey
from stages.privacy.clipping import ClippedSum
from stages.privacy.one_run_bound import epsilon_lower_bound, guess
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.stream import RunKey, Streams
from stages.records.row import Row, SourcedRow
from stages.records.split import split_rows
from stages.training.mechanism import Mechanism

SIGMA, RATE = 1.3, 0.1
SIZES = {"first": 60_000, "second": 60_000}
UNITS, STEPS = 1000, 200
MECHANISM = Mechanism(
    estimator="gradient",
    directions=None,
    noise="gaussian",
    sampler="poisson",
    rate=RATE,
    expected_batch=100.0,
    rows_per_unit=1,
    clip=CLIP,
    clip_rule="flat",
    clip_groups="whole",
    noise_multiplier=SIGMA,
)
Look = Callable[[int], str | None]
"""Given a seed, looks at the engine as it is and returns what it says against it, or None."""


def audited(trial: Trial) -> Look:
    """Return the white-box auditor of a trial: it alarms when its bound exceeds the claim."""

    def look(seed: int) -> str | None:
        found = audit_run(trial, seed)
        if found.bound <= found.claimed:
            return None
        return f"epsilon is at least {found.bound:.2f}, and {found.claimed:g} is claimed"

    return look


def audited_splits(seed: int) -> str | None:
    """Audit what held-out figures, published exactly, tell of units that train: nothing, in our splits.

    The canaries are the units of which a row may train, whatever the coins say. Their score is how many of
    their rows are counted. Nothing is claimed to leak, so any bound above 0 is an alarm.
    """
    rng = np.random.default_rng([seed, 2])
    is_in_M = rng.random(UNITS) < 0.5
    key = PopulationKey(rng.bytes(32))
    rows = [
        SourcedRow(Row(f"{unit}-{row}", str(unit), "", (), ()), None)
        for unit in range(len(is_in_M))
        for row in range(ROWS)
    ]
    train, _ = split_rows(rows, key, 0.5)
    canaries = sorted({int(row.unit) for row in train})
    _, heldout = split_rows([row for row in rows if is_in_M[int(row.row.unit)]], key, 0.5)
    counts = np.bincount([int(row.unit) for row in heldout], minlength=len(is_in_M)).astype(float)
    most = len(canaries) // 4
    bound = epsilon_lower_bound(guess(counts[canaries], is_in_M[canaries], most, most), 0.0, 1 - ALARM)
    if bound == 0:
        return None
    return f"epsilon is at least {bound:.2f} by figures in which units that train have no part"


def noised(seed: int) -> str | None:
    """Look at what two steps publish of nobody: scale, and independence of steps and tensors.

    Four tests of scale of 60,000 numbers each: one 2 % off is noticed nearly always, half always. Six of
    correlation: 0.03 is noticed nearly always. A sound engine is accused once in 2,000 uses.
    """
    zeros = ClippedSum(torch.zeros(sum(SIZES.values()), dtype=torch.float64), CLIP)
    with PreparedNoise(_streams(seed), SIZES, steps=2) as noise:
        steps = [MECHANISM.release(zeros, noise, step).sum_P.numpy() for step in range(2)]
    drawn = {
        f"{name} tensor at step {step}": part
        for step, sum_P in enumerate(steps)
        for name, part in zip(SIZES, np.split(sum_P, np.cumsum(list(SIZES.values()))[:-1]), strict=True)
    }
    for where, part in drawn.items():
        if not has_scale(part, SIGMA * CLIP):
            return f"the scale of the {where} is {part.std() / (SIGMA * CLIP):.2f} of the planned one"
    for (one, left), (other, right) in combinations(drawn.items(), 2):
        if not are_independent(left, right):
            return f"the {one} and the {other} are correlated"
    return None


def included(seed: int) -> str | None:
    """Look at who joins: rate, sizes of batches, turns of units, consecutive steps, and two processes.

    200,000 coins: a rate 4 % off is noticed nearly always, batches of one size always. A sound engine is
    accused once in 2,500 uses.
    """
    streams = _streams(seed)
    learners = [replace(learner_of(np.arange(UNITS), 1), ranks=Ranks(rank, 2)) for rank in range(2)]
    rows = [np.array([unit]) for unit in range(UNITS)]
    found = np.zeros((STEPS, UNITS), dtype=bool)
    looks = np.zeros((STEPS, UNITS), dtype=int)
    for step in range(STEPS):
        sampled = MECHANISM.sample(rows, streams, step)
        found[step, np.concatenate(sampled)] = True
        for learner in learners:
            for batch in learner.shared_micro_batches(sampled):
                looks[step, batch.rows] += 1
    surprises = {
        "the number of units that join": rate_pvalue(found, RATE),
        "the spread of batch sizes": batch_size_pvalue(found, RATE),
        "the spread of the units' turns": unit_count_pvalue(found, RATE),
        "units in consecutive steps": together_pvalue(found[1:], found[:-1], RATE),
    }
    for what, p in surprises.items():
        if p < ALARM:
            return f"{what}: p = {p:.0e}"
    if not np.array_equal(looks, found):
        twice, never = int((looks > 1).sum()), int((found & (looks == 0)).sum())
        return f"two processes look at {twice} sampled units twice and at {never} not at all"
    return None


def _streams(seed: int) -> Streams:
    return Streams(RunKey(np.random.default_rng([seed, 1]).bytes(32)), "faults", "finetune")
