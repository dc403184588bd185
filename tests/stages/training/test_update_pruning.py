"""Update pruning keeps what its rule says, from the noisy sum alone."""

import math

import pytest
import torch
from choices import pruning

from stages.privacy.noise import NoisySum
from stages.training.update_pruning import updated_weights

BLOCKS = [slice(0, 2), slice(2, 6), slice(6, 10)]
NOISY = NoisySum(torch.tensor([3.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1]))


def kept(prune: str, keep: float, step: int = 0) -> list[int]:
    section = pruning(prune, keep)
    return updated_weights(NOISY, BLOCKS, section, seed=1, step=step).nonzero()[:, 0].tolist()


def test_blocks_are_kept_whole_by_norm_over_root_of_size():
    assert kept("block", 0.3) == [0, 1]
    assert kept("block", 0.34) == [0, 1, 2, 3, 4, 5]
    assert kept("block", 1.0) == list(range(10))


def test_magnitude_keeps_the_largest_values_and_random_as_many_from_public_randomness():
    assert kept("magnitude", 0.3) == [0, 1, 2]
    assert len(kept("random", 0.3)) == 3
    assert kept("random", 0.3) == kept("random", 0.3)
    assert len({tuple(kept("random", 0.3, step)) for step in range(20)}) > 5


def test_all_keeps_everything():
    assert kept("all", 0.5) == list(range(10))


@pytest.mark.parametrize("keep", [0.0, 1.1])
def test_an_impossible_fraction_is_refused(keep):
    with pytest.raises(ValueError, match="update.keep must lie in"):
        pruning("block", keep)


def test_the_known_arithmetic_of_pure_noise():
    """By magnitude, 80 % of pure-noise coordinates hold 99.6 % of its energy and 50 % hold 92.9 %."""
    noise = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for keep, expected in ((0.8, 0.996), (0.5, 0.929)):
        mask = updated_weights(NoisySum(noise), [], pruning("magnitude", keep), seed=0, step=0)
        assert math.isclose(float(noise[mask].pow(2).sum() / noise.pow(2).sum()), expected, abs_tol=2e-3)
