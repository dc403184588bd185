"""How many bytes one training step needs: counted while it runs, on public rows."""

from dataclasses import dataclass, field, replace

import numpy as np

from stages.core.speed import Speed
from stages.privacy.clipping import Clipping, Groups
from stages.privacy.directions import Directions
from stages.privacy.plan import EstimatorKind
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import IGNORED, EncodedSet, TokenRow
from stages.trainable.adapters import attach
from stages.trainable.settings import Trainable
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum, plain_gradient_sum
from stages.training.learner import Learner
from stages.training.micro_batches import Bounds
from stages.training.zeroth_order import clipped_slope_sum
from stages.vlm.attribution import first_axis
from stages.vlm.loaded import Loaded

_ONE = Directions(count=1, perturbation=1e-3, seed=0)
"""Directions come one after the other, so one needs as much as many."""
_Shape = tuple[int, int, int]


@dataclass(frozen=True)
class StepMemory:
    """A model with what learns attached, to take steps with and to release nothing of them."""

    learner: Learner
    estimator: EstimatorKind
    groups: Groups
    _known: dict[tuple[_Shape, ...], int] = field(default_factory=dict)

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
        return cls(Learner(model, loaded.family, layers, encoded, alone), estimator, groups)

    def bytes(self, encoded: EncodedSet) -> int:
        """Return the most bytes of tensors above the weights while a step looks at all rows at once.

        Forward, backward and the (clipped) sum, every row a unit of its own. The same every time, for sizes
        hang on shapes alone; scratch memory inside a kernel is not seen.
        """
        shapes = tuple(_shape(row, encoded.image_token_id) for row in encoded.rows)
        if shapes not in self._known:
            learner = replace(self.learner, encoded=encoded, bounds=Bounds(len(shapes), 2**62))
            self._step(learner)  # what a first run leaves behind is not a step's
            with Allocations(learner.model) as allocations:
                self._step(learner)
            self._known[shapes] = int(allocations.peak)
        return self._known[shapes]

    def _step(self, learner: Learner) -> None:
        units = [np.array([row]) for row in range(len(learner.encoded.rows))]
        if self.estimator == "nonprivate":
            plain_gradient_sum(learner, units)
        elif self.estimator == "zeroth_order":
            clipped_slope_sum(learner, units, _ONE, Clipping(1.0), "l2", 0)
        else:
            clipped_gradient_sum(learner, units, Clipping(1.0, "flat", self.groups))


def _shape(row: TokenRow, image_token_id: int) -> _Shape:
    learned = sum(label != IGNORED for label in row.labels)
    return len(row.input_ids), learned, row.input_ids.count(image_token_id)
