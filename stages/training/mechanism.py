"""What one step does to private units: one object that executes it and says what it executed."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stages.privacy.clipping import ClippedSum
from stages.privacy.clipping_rule import Clipping, Groups, Norm, Rule
from stages.privacy.directions import Directions, Distribution
from stages.privacy.noise import NoisySum, add_noise, publish
from stages.privacy.plan import EstimatorKind, Plan
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.sampling import choose_rows, poisson_sample
from stages.privacy.stream import Streams
from stages.privacy.trainable_layers import TrainableLayers
from stages.training.estimators import clipped_gradient_sum, plain_gradient_sum
from stages.training.learner import Learner
from stages.training.micro_batches import Units
from stages.training.zeroth_order import along, clipped_slope_sum


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """The parameters of a step that the accountant prices; ``clip`` and noise are None without privacy."""

    estimator: EstimatorKind
    directions: Directions | None
    noise: Distribution | None
    sampler: Literal["poisson"]
    rate: float
    expected_batch: float
    rows_per_unit: int
    clip: float | None
    clip_rule: Rule | None
    clip_groups: Groups | None
    noise_multiplier: float | None

    def __post_init__(self) -> None:
        """Refuse clipping without noise, and noise without clipping."""
        bound = (self.clip, self.clip_rule, self.clip_groups, self.noise, self.noise_multiplier)
        if any(part is None for part in bound) != all(part is None for part in bound):
            raise ValueError(
                f"clip {self.clip} does not go with noise multiplier {self.noise_multiplier}: a step has "
                "both or neither"
            )

    @classmethod
    def of(cls, plan: Plan) -> "Mechanism":
        """Return what a step of ``plan`` does."""
        if (plan.mechanism == "none") != (plan.clip is None):
            raise ValueError(f"mechanism '{plan.mechanism}' of the plan does not go with clip {plan.clip}")
        return cls(
            estimator=plan.estimator,
            directions=plan.directions,
            noise=None if plan.mechanism == "none" else plan.mechanism,
            sampler=plan.sampler,
            rate=plan.sampling.rate,
            expected_batch=plan.sampling.expected_batch,
            rows_per_unit=plan.rows_per_unit,
            clip=plan.clip,
            clip_rule=plan.clip_rule,
            clip_groups=plan.clip_groups,
            noise_multiplier=plan.noise_multiplier,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the stored form, a part of every intent and so of the trace."""
        return asdict(self)

    def sample(self, rows_by_unit: Sequence[NDArray[np.int64]], streams: Streams, step: int) -> Units:
        """Return the rows of each unit that joins a step."""
        sampled = poisson_sample(len(rows_by_unit), self.rate, streams.at("sampling", step))
        return [
            choose_rows(rows_by_unit[unit], self.rows_per_unit, streams.at("rows", step, str(unit)))
            for unit in sampled
        ]

    def total(
        self, learner: Learner, units: Units, step: int, support: frozenset[str] | None = None
    ) -> ClippedSum | Tensor:
        """Return the sum over the sampled units, each process having looked at its share.

        Of gradients, shape (P,), or of slopes along the public directions of ``step``, shape (K,). Where
        there is a ``support``, gradients outside of it are masked before they are clipped.

        Guarantee: clipped (with privacy), one unit moves it by at most ``clip``; it is still private.
        """
        if self.clip is None or self.clip_rule is None or self.clip_groups is None:
            return plain_gradient_sum(learner, units)
        clipping = Clipping(self.clip, self.clip_rule, self.clip_groups)
        if self.directions is None:
            return clipped_gradient_sum(learner, units, clipping, support)
        norm: Norm = "l1" if self.noise == "laplace" else "l2"
        return clipped_slope_sum(learner, units, self.directions, clipping, norm, step)

    def prepared_noise(self, trainable: TrainableLayers, streams: Streams, steps: int) -> PreparedNoise:
        """Return the noise of every step: as many numbers as ``total`` has, on the device of the weights."""
        sizes = {name: where.stop - where.start for name, where in trainable.slices().items()}
        if self.directions is not None:
            sizes = {"slopes": self.directions.count}
        device = next(iter(trainable.parameters().values())).device
        return PreparedNoise(streams, sizes, steps, device, self.noise or "gaussian")

    def gradient(self, noisy: NoisySum, trainable: TrainableLayers, step: int) -> NoisySum:
        """Return a released sum as one over weights, shape (P,): post-processing, nothing is read again."""
        if self.directions is None:
            return noisy
        return along(noisy, self.directions, trainable, step)

    def release(
        self, total: ClippedSum | Tensor, noise: PreparedNoise, step: int, is_in_P: Tensor | None = None
    ) -> NoisySum:
        """Return the sum that may be published; asked once a step, by the process that leads.

        ``is_in_P`` is the support that ``total`` was masked to: noise is put there alone, and elsewhere the
        sum is zero whatever the data.

        Guarantee: with ``sample`` and ``total``, the event PoissonSampled(rate, Gaussian(noise_multiplier)),
        or that of Laplace; without clipping and noise, no privacy at all. A sum that is not zero outside of
        its support is a ValueError.
        """
        if self.noise_multiplier is None:
            if isinstance(total, ClippedSum):
                raise ValueError("a clipped sum is released with noise only")
            return publish(total)
        if not isinstance(total, ClippedSum):
            raise ValueError("noise hides a unit only in a sum that was clipped")
        drawn = noise.at(step)
        if is_in_P is not None:
            if bool(total.sum_P[~is_in_P].any()):
                raise ValueError("a sum was to be masked to a support, and is not zero outside of it")
            drawn = drawn.only(is_in_P)
        return add_noise(total, self.noise_multiplier, drawn)

    def deviation(self) -> float:
        """Return the standard deviation of the noise on each weight of ``gradient``; 0 without privacy."""
        if self.noise_multiplier is None or self.clip is None:
            return 0.0
        each = self.noise_multiplier * self.clip * (math.sqrt(2) if self.noise == "laplace" else 1.0)
        return each if self.directions is None else each / math.sqrt(self.directions.count)
