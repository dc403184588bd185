"""Who looks for faults of the engine: each is given a seed and returns what it says against it, or None."""

from collections.abc import Callable
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
from benchmarks.white_box import DELTA, GUESSES, Trial, audit_run
from stages.core.ranks import Ranks
from stages.ledger.population_key import PopulationKey
from stages.privacy.clipping import ClippedSum
from stages.privacy.one_run_bound import epsilon_lower_bound, guess
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.stream import RunKey, Streams
from stages.records.row import Row, SourcedRow
from stages.records.split import split_rows
from stages.training.mechanism import Mechanism

CLIP, SIGMA, RATE = 0.5, 1.3, 0.1
SIZES = {"first": 60_000, "second": 60_000}
UNITS, STEPS = 1000, 200
MECHANISM = Mechanism(
    sampler="poisson",
    rate=RATE,
    expected_batch=100.0,
    rows_per_unit=1,
    clip=CLIP,
    clip_rule="flat",
    clip_groups="whole",
    noise_multiplier=SIGMA,
)
Catch = Callable[[int], str | None]


def audited(trial: Trial) -> Catch:
    """Return the white-box auditor of a trial: it alarms when its bound exceeds the claim."""

    def catch(seed: int) -> str | None:
        found = audit_run(trial, seed)
        if found.bound <= found.claimed:
            return None
        return f"epsilon is at least {found.bound:.2f}, and {found.claimed:g} is claimed"

    return catch


def audited_splits(seed: int) -> str | None:
    """Audit what held-out figures, published exactly, tell of units that train: nothing, in our splits.

    The canaries are the units of which a row may train. Their score is how many of their rows are counted.
    """
    rng = np.random.default_rng([seed, 2])
    is_in_M = rng.random(4 * GUESSES) < 0.5
    key = PopulationKey(rng.bytes(32))
    rows = [
        SourcedRow(Row(f"{unit}-{row}", str(unit), "", (), ()), None)
        for unit in range(len(is_in_M))
        for row in range(4)
    ]
    train, _ = split_rows(rows, key, 0.5)
    canaries = sorted({int(row.unit) for row in train})
    _, heldout = split_rows([row for row in rows if is_in_M[int(row.row.unit)]], key, 0.5)
    counts = np.bincount([int(row.unit) for row in heldout], minlength=len(is_in_M)).astype(float)
    most = len(canaries) // 4
    bound = epsilon_lower_bound(guess(counts[canaries], is_in_M[canaries], most, most), DELTA)
    return None if bound <= 2 else f"epsilon is at least {bound:.2f}, and 2 is claimed"


def noised(seed: int) -> str | None:
    """Look at what two steps publish of nobody: scale, and independence of steps and tensors."""
    zeros = ClippedSum(torch.zeros(sum(SIZES.values()), dtype=torch.float64), CLIP)
    with PreparedNoise(_streams(seed), SIZES, steps=2) as noise:
        steps = [MECHANISM.release(zeros, noise, step).sum_P.numpy() for step in range(2)]
    drawn = {
        f"{name} tensor at step {step}": part
        for step, sum_P in enumerate(steps)
        for name, part in zip(SIZES, np.split(sum_P, 2), strict=True)
    }
    for where, part in drawn.items():
        if not has_scale(part, SIGMA * CLIP):
            return f"the scale of the {where} is {part.std() / (SIGMA * CLIP):.2f} of the planned one"
    for (one, left), (other, right) in combinations(drawn.items(), 2):
        if not are_independent(left, right):
            return f"the {one} and the {other} are correlated"
    return None


def included(seed: int) -> str | None:
    """Look at who joins: rate, sizes of batches, turns of units, consecutive steps, and two processes."""
    streams = _streams(seed)
    rows = [np.array([unit]) for unit in range(UNITS)]
    found = np.zeros((STEPS, UNITS), dtype=bool)
    looks = np.zeros((STEPS, UNITS), dtype=int)
    for step in range(STEPS):
        sampled = [int(unit[0]) for unit in MECHANISM.sample(rows, streams, step)]
        found[step, sampled] = True
        for rank in range(2):
            looks[step, Ranks(rank, 2).share(sampled)] += 1
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
        return f"two processes look at {int((looks > 1).sum())} of {int(found.sum())} sampled units twice"
    return None


def _streams(seed: int) -> Streams:
    return Streams(RunKey(np.random.default_rng([seed, 1]).bytes(32)), "faults", "finetune")
