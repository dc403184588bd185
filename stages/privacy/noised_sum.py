"""One noised sum over privacy units: what a choice, or a published figure, is made from.

Shapes: U sampled units, K numbers that a unit contributes: everything that is released together, over all
layers, rules, kinds of question and models, one behind the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stages.privacy.sampling import choose_rows, poisson_sample
from stages.privacy.stream import Streams

if TYPE_CHECKING:  # a section of params.yaml is read by stages that need neither
    from dp_accounting import DpEvent
    from torch import Tensor

    from stages.privacy.noise import NoisySum


@dataclass(frozen=True, kw_only=True)
class NoisedSum:
    """The part ``private`` of a section of params.yaml: the whole mechanism, in public constants."""

    rate: float
    """Chance that a unit is looked at, independently of everything else; 1: every unit is."""
    rows_per_unit: int
    """Most rows of a unit that are looked at."""
    clip: float
    """L2 norm of all that one unit contributes, whatever the number of layers, rules, kinds and models."""
    noise_multiplier: float
    """Noise standard deviation / clip."""

    def __post_init__(self) -> None:
        """Refuse what describes no mechanism."""
        if not 0 < self.rate <= 1:
            raise ValueError(f"private.rate must lie in (0, 1], got {self.rate}")
        if self.rows_per_unit < 1:
            raise ValueError(f"private.rows_per_unit must be at least 1, got {self.rows_per_unit}")
        for name, value in (("clip", self.clip), ("noise_multiplier", self.noise_multiplier)):
            if not 0 < value < math.inf:
                raise ValueError(f"private.{name} must be positive and finite, got {value}")

    @property
    def sampler(self) -> Literal["poisson", "none"]:
        """Return how units come to be looked at."""
        return "poisson" if self.rate < 1 else "none"

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the noise on each released number."""
        return self.noise_multiplier * self.clip

    def words(self) -> str:
        """Say what is released, for people."""
        units = "all units" if self.sampler == "none" else f"a Poisson sample of units at rate {self.rate:g}"
        return (
            f"Gaussian noise of standard deviation {self.deviation:g} on a sum over {units}, each of L2 norm "
            f"at most {self.clip:g}"
        )

    def event(self) -> "DpEvent":
        """Return the privacy event of ``sample`` and ``release``, for one unit added or removed."""
        import dp_accounting

        once = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        return once if self.sampler == "none" else dp_accounting.PoissonSampledDpEvent(self.rate, once)

    def sample(self, rows_by_unit: Sequence[NDArray[np.int64]], streams: Streams) -> list[NDArray[np.int64]]:
        """Return the rows to look at of each unit that joins.

        Guarantee: every unit joins independently with chance ``rate``; which of its rows are looked at is a
        function of that unit and its own stream.
        """
        joining = poisson_sample(len(rows_by_unit), self.rate, streams.at("sampling", 0))
        return [
            choose_rows(rows_by_unit[unit], self.rows_per_unit, streams.at("rows", 0, str(unit)))
            for unit in joining
        ]

    def release(self, contributions_UK: "Tensor", streams: Streams) -> "NoisySum":
        """Clip what each sampled unit contributes, add up, and add noise from the secret stream, in float64.

        The Gaussian mechanism (Dwork and Roth 2014, section 3.5.3) on one vector-valued query.

        Guarantee: where row u depends on unit u alone, this is the event ``event()`` under add or remove of
        one unit, whatever the unit holds. What is made from the result alone is post-processing. Dividing by
        anything but a public constant is not.

        Edge cases: no units give noise alone; a unit with NaN or infinity adds nothing. The same streams give
        the same noise: they must serve this one sum.
        """
        from stages.privacy.clipping import clip_sum
        from stages.privacy.noise import add_noise
        from stages.privacy.prepared_noise import PreparedNoise

        clipped = clip_sum(contributions_UK, self.clip)
        with PreparedNoise(streams, {"sum": contributions_UK.shape[1]}, steps=1) as noise:
            return add_noise(clipped, self.noise_multiplier, noise.at(0))


@dataclass(frozen=True, kw_only=True)
class NoisedMean(NoisedSum):
    """A noised sum that is shown divided by a public constant."""

    expected_units: float
    """Divides the noised sum: about ``rate`` times the units of the population; never counted."""

    def __post_init__(self) -> None:
        """Refuse a divisor that divides nothing."""
        super().__post_init__()
        if not 0 < self.expected_units < math.inf:
            raise ValueError(f"private.expected_units must be positive, got {self.expected_units}")

    def mean(self, noised: "NoisySum") -> list[float]:
        """Return the noised sum over ``expected_units``."""
        return [float(value) / self.expected_units for value in noised.sum_P]
