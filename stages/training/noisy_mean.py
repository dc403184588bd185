"""The noisy mean gradient that optimizers see, with what is publicly known of its noise.

Shapes: P trainable weights.
"""

from dataclasses import dataclass

from torch import Tensor

from stages.privacy.noise import NoisySum


@dataclass(frozen=True)
class NoisyMean:
    """A released sum over a public constant; made by ``of`` only."""

    sum_P: Tensor
    divisor: float
    deviation: float
    """Standard deviation of the noise on every weight of the mean, 0 without privacy."""

    @classmethod
    def of(cls, noisy: NoisySum, expected_batch: float, deviation: float) -> "NoisyMean":
        """Divide a sum that has left the private side; ``deviation`` is that of the sum's noise.

        Guarantee: post-processing. Anything but a ``NoisySum`` is a TypeError.
        """
        if not isinstance(noisy, NoisySum):
            raise TypeError(f"optimizers see noisy sums only, got {type(noisy).__name__}")
        return cls(noisy.sum_P, expected_batch, deviation / expected_batch)

    @property
    def mean_P(self) -> Tensor:
        """Return the mean of all weights, shape (P,)."""
        return self.part(slice(None))

    def part(self, where: slice) -> Tensor:
        """Return the mean of some weights: the whole would be one more vector of P numbers."""
        return self.sum_P[where] / self.divisor
