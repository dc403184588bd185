"""Poisson sampling of privacy units, and of the rows of a sampled unit."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.privacy.stream import Stream


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Section ``sampling`` of params.yaml: how often a unit is looked at. All three are public constants."""

    steps: int
    rate: float
    """Chance that a unit joins a step, independently of everything else."""
    expected_batch: float
    """Divides the noisy sum; never the true batch size, never derived from the number of private rows."""

    def __post_init__(self) -> None:
        """Refuse values that describe no sampling."""
        if self.steps < 1:
            raise ValueError(f"sampling.steps must be at least 1, got {self.steps}")
        if not 0 < self.rate <= 1:
            raise ValueError(f"sampling.rate must lie in (0, 1], got {self.rate}")
        if not (self.expected_batch > 0 and math.isfinite(self.expected_batch)):
            raise ValueError(f"sampling.expected_batch must be positive, got {self.expected_batch}")


def poisson_sample(units: int, rate: float, stream: Stream) -> NDArray[np.int64]:
    """Return the indices of the units that join one step, ascending; may be empty.

    Guarantee: every unit joins independently with probability ``rate``, to within 2^-64; unit i's coin is
    the i-th integer of the stream, so adding or removing the last unit changes no other coin.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"the sampling rate must lie in (0, 1], got {rate}")
    if rate == 1:
        return np.arange(units)
    threshold = np.uint64(math.floor(rate * 2**64))
    return np.flatnonzero(stream.integers(units) < threshold)


def choose_rows(rows: NDArray[np.int64], at_most: int, stream: Stream) -> NDArray[np.int64]:
    """Return at most ``at_most`` of one unit's rows, uniformly without replacement, in their order.

    A function of that unit and the stream alone, so it costs no privacy.
    """
    if len(rows) <= at_most:
        return rows
    return np.sort(rows[np.argsort(stream.integers(len(rows)), kind="stable")[:at_most]])
