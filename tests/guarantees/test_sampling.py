"""Units join steps independently at the planned rate; shuffled batches would be noticed."""

import numpy as np
from scipy import stats

from benchmarks.detectors import batch_size_pvalue, rate_pvalue, together_pvalue, unit_count_pvalue
from stages.core.ranks import Ranks
from stages.privacy.sampling import choose_rows, poisson_sample
from stages.privacy.stream import RunKey, Streams

STREAMS = Streams(RunKey(bytes(range(32))), "fingerprint", "finetune")
UNITS, STEPS, RATE = 1000, 400, 0.1


def inclusion() -> np.ndarray:
    found = np.zeros((STEPS, UNITS), dtype=bool)
    for step in range(STEPS):
        found[step, poisson_sample(UNITS, RATE, STREAMS.at("sampling", step))] = True
    return found


def shuffled() -> np.ndarray:
    """Fixed-size batches from a shuffled order, as ordinary loaders make them."""
    random = np.random.default_rng(0)
    found = np.zeros((STEPS, UNITS), dtype=bool)
    for epoch in range(STEPS // 10):
        for step, batch in enumerate(np.split(random.permutation(UNITS), 10)):
            found[10 * epoch + step, batch] = True
    return found


def test_units_join_at_the_rate_and_a_rate_two_percent_off_is_noticed():
    """400,000 coins: a rate of 0.102 instead of 0.1 is 4.2 standard deviations away."""
    found = inclusion()
    assert rate_pvalue(found, RATE) > 1e-3
    thinned = found | (np.random.default_rng(1).random(found.shape) < 0.003)
    assert rate_pvalue(thinned, RATE) < 1e-3


def test_batch_sizes_and_unit_counts_vary_as_independent_coins_do_and_shuffled_batches_do_not():
    assert batch_size_pvalue(inclusion(), RATE) > 1e-3 and unit_count_pvalue(inclusion(), RATE) > 1e-3
    assert batch_size_pvalue(shuffled(), RATE) < 1e-6 and unit_count_pvalue(shuffled(), RATE) < 1e-6


def test_consecutive_steps_are_independent_and_a_coin_that_is_kept_is_noticed():
    """399,000 pairs at 1 %: a coin kept with probability 0.01 moves the count by 9 % or 5.7 deviations."""
    found = inclusion()
    assert together_pvalue(found[1:], found[:-1], RATE) > 1e-3
    is_kept = np.random.default_rng(2).random(found[1:].shape) < 0.01
    assert together_pvalue(np.where(is_kept, found[:-1], found[1:]), found[:-1], RATE) < 1e-3
    assert together_pvalue(shuffled()[1:], shuffled()[:-1], RATE) < 1e-6, "an epoch draws nobody twice"


def test_neighbouring_units_are_independent_and_pairs_that_go_together_are_noticed():
    found = inclusion()
    for distance in (1, 2, UNITS // 2):
        assert together_pvalue(found[:, distance:], found[:, :-distance], RATE) > 1e-3
    is_joined = np.random.default_rng(3).random(found[:, 1:].shape) < 0.01
    assert together_pvalue(np.where(is_joined, found[:, :-1], found[:, 1:]), found[:, :-1], RATE) < 1e-3


def shares(world: int, streams_of_rank) -> np.ndarray:
    """Return how many of ``world`` processes look at each unit, by step."""
    found = np.zeros((STEPS, UNITS), dtype=int)
    for rank in range(world):
        for step in range(STEPS):
            sampled = poisson_sample(UNITS, RATE, streams_of_rank(rank).at("sampling", step))
            found[step, Ranks(rank, world).share(sampled)] += 1
    return found


def test_processes_share_one_sample_and_samples_of_their_own_or_equal_local_ones_are_noticed():
    """One key for all: each sampled unit is looked at once. A key for each, or no division: it is not."""
    for world in (1, 2, 4):
        assert np.array_equal(shares(world, lambda rank: STREAMS), inclusion().astype(int))
    own = shares(2, lambda rank: Streams(RunKey(bytes([rank] * 32)), "fingerprint", "finetune"))
    assert own.max() == 2 and not np.array_equal(own, inclusion().astype(int))
    undivided = 2 * inclusion().astype(int)  # every process looks at the whole sample
    assert not np.array_equal(undivided, inclusion().astype(int))


def test_a_unit_that_leaves_changes_nobody_elses_coin():
    more = poisson_sample(UNITS, RATE, STREAMS.at("sampling", 3))
    less = poisson_sample(UNITS - 1, RATE, STREAMS.at("sampling", 3))
    assert np.array_equal(more[more < UNITS - 1], less)


def test_rate_one_takes_everybody():
    assert len(poisson_sample(7, 1.0, STREAMS.at("sampling", 0))) == 7


def test_rows_of_a_unit_are_chosen_uniformly_and_never_too_many():
    rows = np.arange(10, 15)
    counts = np.zeros(5)
    for step in range(4000):
        chosen = choose_rows(rows, 2, STREAMS.at("rows", step))
        assert len(set(chosen.tolist())) == 2
        counts[chosen - 10] += 1
    assert stats.chisquare(counts).pvalue > 1e-3
    assert choose_rows(rows, 9, STREAMS.at("rows", 0)).tolist() == rows.tolist()
