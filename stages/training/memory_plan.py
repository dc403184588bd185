"""What a training step would need on a GPU that one does not have, from a model's config.json alone.

The step is the real one, run without values (step_memory.py). What is not counted: scratch memory inside
kernels, the CUDA context, fragmentation of the allocator. A margin is left for them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stages.core.speed import Speed
from stages.privacy.clipping import Groups
from stages.privacy.directions import Distribution
from stages.privacy.plan import EstimatorKind
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import IGNORED, EncodedSet, TokenRow
from stages.records.features import Features
from stages.trainable.adapters import attach
from stages.trainable.settings import Trainable
from stages.training.fake_tensors import without_values
from stages.training.learner import Learner
from stages.training.optimizer import Optim
from stages.training.step_memory import StepMemory, unpriced
from stages.training.synthetic_rows import Shape
from stages.vlm.activations import recompute_activations
from stages.vlm.attribution import first_axis
from stages.vlm.family import Precision, family_of, outline

WEIGHTS, LEARNED = "frozen weights", "weights that learn"
MARGIN = 0.1
"""Share of a GPU's memory that is left free, where nothing else is said."""
_GROWTH = 7
"""By how many times its rows a count may go beyond one that fits: bytes may be flat before they rise."""
_DEVICE = "cpu"
"""Where the model without values claims to be."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is trained and how a step looks at it."""

    trainable: Trainable
    estimator: EstimatorKind
    groups: Groups
    noise: Distribution
    rows_per_unit: int
    optim: Optim
    recompute: bool = False
    """Whether layers' activations are forgotten and computed again."""


@dataclass(frozen=True)
class Need:
    """Bytes alive at the peak of a step, by what they belong to."""

    rows: int
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Return the peak."""
        return sum(self.parts.values())

    @property
    def above_weights(self) -> int:
        """Return the peak less all weights of the model."""
        return self.total - self.parts[WEIGHTS] - self.parts[LEARNED]

    @property
    def dominant(self) -> str:
        """Return the part with most bytes."""
        return max(self.parts, key=lambda part: self.parts[part])


@dataclass(frozen=True)
class MemoryPlan:
    """Steps of one method on one model, for rows of one shape."""

    memory: StepMemory
    method: Method
    shape: Shape
    weights: dict[str, int]

    @classmethod
    def of(cls, path: Path, precision: Precision, method: Method, shape: Shape) -> "MemoryPlan":
        """Build the model that ``path`` describes, without values."""
        family, model = family_of(path), outline(path, precision)
        width, axes = family.slot_width(model), len(family.positions(model, [0], []))
        encoded = _encoded(width, getattr(torch, precision), axes, int(model.config.image_token_id))
        attached = attach(model, method.trainable, family, seed=0)
        if method.recompute:
            recompute_activations(attached)
        model_type = str(attached.config.model_type)  # type: ignore[union-attr]
        attached = without_values(attached, _DEVICE)
        layers = TrainableLayers.of(attached, first_axis(model_type))
        learner = Learner(attached, family, layers, encoded, _speed(method.recompute))
        mechanism = unpriced(method.estimator, method.groups, method.noise)
        return cls(StepMemory(learner, mechanism), method, shape, _weights(attached))

    def need(self, rows: int) -> Need:
        """Return what a step needs that takes ``rows`` rows at once; several of one unit stay together."""
        parts = self.memory.parts([self.shape] * rows, self.method.rows_per_unit, self.method.optim)
        return Need(rows, {**self.weights, **parts})

    def largest(self, limit: int) -> Need | None:
        """Return the need of the most whole units that stay within ``limit`` bytes; None: not one does.

        Bytes grow with rows as a line or steeper, for another moment may become the peak. So a line through
        two counts that fit tells when one unit more cannot fit; else it says where to count next.
        """
        unit = self.method.rows_per_unit
        fits = self.need(unit)
        if fits.total > limit:
            return None
        over, other, probe = None, fits, self.need(3 * unit)
        while True:
            if probe.total > limit:
                over = other = probe
            else:
                fits, other = probe, over or fits
            if over is not None and over.rows - fits.rows <= unit:
                return fits
            per_unit = (other.total - fits.total) / (other.rows - fits.rows) * unit
            more = int((limit - fits.total) / max(per_unit, 1.0))
            if over is not None:
                more = min(max(more, 1), (over.rows - fits.rows) // unit - 1)
            elif more < 1:
                return fits
            probe = self.need(fits.rows + min(more * unit, _GROWTH * fits.rows))


def _encoded(width: int, dtype: torch.dtype, axes: int, image_token_id: int) -> EncodedSet:
    """Return a set that says how rows are made, with no image in it."""
    none = np.zeros(0, dtype=np.int64)
    features = Features((torch.zeros(0, width, dtype=dtype),), none, none, none)
    row = TokenRow((0,), (IGNORED,), ((0,),) * axes, (), 0, 0)
    return EncodedSet(features, (row,), ("",), 0, image_token_id, 0)


def _speed(recompute: bool) -> Speed:
    return Speed(
        device=_DEVICE,
        threads=0,
        micro_batch=1,
        micro_batch_tokens=1,
        memory_limit=None,
        recompute_activations=recompute,
        processes=1,
        shard_base=False,
        checkpoint_every=1,
    )


def _weights(model: nn.Module) -> dict[str, int]:
    found = {WEIGHTS: 0, LEARNED: 0}
    for value in (*model.parameters(), *model.buffers()):
        found[LEARNED if value.requires_grad else WEIGHTS] += value.numel() * value.element_size()
    return found
