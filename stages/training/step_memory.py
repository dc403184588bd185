"""How many bytes one training step needs: counted while it runs on a twin of the model without values.

Sizes hang on shapes alone, so what is counted is what a real step would allocate, byte for byte
(tests/stages/training/test_step_memory.py), and takes neither its memory nor its time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from stages.core.ranks import ALONE
from stages.core.speed import Speed
from stages.privacy.clipping_rule import Groups
from stages.privacy.directions import Directions, Distribution
from stages.privacy.plan import EstimatorKind
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import EncodedSet
from stages.trainable.adapters import attach
from stages.trainable.settings import Trainable
from stages.training.allocations import Allocations
from stages.training.fake_tensors import running, twin
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.memory_parts import Parts
from stages.training.micro_batches import Bounds, Units
from stages.training.optimizer import Optim
from stages.training.synthetic_rows import Shape, synthetic_learner
from stages.training.whole_step import whole_step
from stages.vlm.attribution import first_axis
from stages.vlm.loaded import Loaded

_ONE = Directions(count=1, perturbation=1e-3, seed=0)
"""Directions come one after the other, so one needs as much as many."""


@dataclass(frozen=True)
class StepMemory:
    """Counts what steps of one kind need; ``learner`` holds no values (``without_values_of``)."""

    learner: Learner
    mechanism: Mechanism
    noise_waits_aside: bool = False
    """Whether the noise that comes next lies in other memory, as it does beside a GPU."""

    @classmethod
    def of(
        cls,
        loaded: Loaded,
        trainable: Trainable,
        estimator: EstimatorKind,
        groups: Groups,
        seed: int,
        speed: Speed,
        encoded: EncodedSet,
    ) -> "StepMemory":
        """Attach what learns to the model of ``loaded``, which is changed; ``encoded`` is like all to come.

        Of ``speed`` only the device counts: activations are kept, and one process holds the whole base.
        """
        model = attach(loaded.model, trainable, loaded.family, seed)
        layers = TrainableLayers.of(model, first_axis(loaded.model.config.model_type))
        alone = replace(speed, recompute_activations=False, shard_base=False)
        learner = Learner(model, loaded.family, layers, encoded, alone)
        return cls(without_values_of(learner), unpriced(estimator, groups))

    def bytes(self, encoded: EncodedSet, units: Units | None = None) -> int:
        """Return the most bytes of tensors above the weights while a step looks at all rows at once.

        Forward, backward and the (clipped) sum; every row is a unit of its own where ``units`` are not given.
        Scratch memory inside a kernel is not seen.
        """
        learner = replace(self.learner, encoded=encoded, bounds=Bounds(len(encoded.rows), 2**62))
        rows = units or [np.array([row]) for row in range(len(encoded.rows))]
        with running(), Allocations(learner.model) as allocations:
            self.mechanism.total(learner, rows, step=0)
        return int(allocations.peak)

    def beside(self, optim: Optim) -> tuple[int, int]:
        """Return the bytes above the weights that a run holds while it looks, and the most when it does not.

        Flat weights, the optimizer's state, sums and noise: the same for any units.
        """
        held: list[int] = []
        with running(), Allocations(self.learner.model) as allocations:
            whole_step(
                self.learner,
                [],
                self.mechanism,
                optim,
                lambda begins: held.append(allocations.live) if begins else None,
                self.noise_waits_aside,
            )
        return held[0], int(allocations.peak)

    def parts(self, shapes: Sequence[Shape], rows_per_unit: int, optim: Optim) -> dict[str, int]:
        """Return the bytes of each part at the peak of a whole step, what a run holds besides included.

        Rows are of these shapes and go through the model at once, ``rows_per_unit`` of them a unit.
        """
        learner = replace(synthetic_learner(self.learner, shapes), bounds=Bounds(len(shapes), 2**62))
        starts = range(0, len(shapes), rows_per_unit)
        units = [np.arange(start, min(start + rows_per_unit, len(shapes))) for start in starts]
        config = learner.model.config
        parts = Parts(int(config.get_text_config().vocab_size))  # type: ignore[union-attr, operator]
        with running(), Allocations(learner.model, parts) as allocations:
            whole_step(learner, units, self.mechanism, optim, parts.look, self.noise_waits_aside)
        found: dict[str, int] = allocations.parts_at_peak
        return found


def without_values_of(learner: Learner) -> Learner:
    """Return a learner whose model works as that of ``learner`` does and holds no values; it works alone."""
    return replace(around(twin(learner.model), learner), ranks=ALONE)


def around(model: nn.Module, learner: Learner) -> Learner:
    """Return the learner with another model of the same shapes."""
    model_type = str(model.config.model_type)  # type: ignore[union-attr]
    return replace(learner, model=model, trainable=TrainableLayers.of(model, first_axis(model_type)))


def unpriced(estimator: EstimatorKind, groups: Groups, noise: Distribution = "gaussian") -> Mechanism:
    """Return a mechanism to count bytes with; its numbers stand for any."""
    is_private = estimator != "nonprivate"
    return Mechanism(
        estimator=estimator,
        directions=_ONE if estimator == "zeroth_order" else None,
        noise=noise if is_private else None,
        sampler="poisson",
        rate=1.0,
        expected_batch=1.0,
        rows_per_unit=1,
        clip=1.0 if is_private else None,
        clip_rule="flat" if is_private else None,
        clip_groups=groups if is_private else None,
        noise_multiplier=1.0 if is_private else None,
    )
