"""What a training step would need on a GPU that one does not have, from a model's config.json alone.

The step is the real one, run without values (step_memory.py). What is not counted: scratch memory inside
kernels, the CUDA context, fragmentation of the allocator. A margin is left for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from stages.core.ranks import Ranks
from stages.core.speed import Speed
from stages.privacy.clipping_rule import Groups
from stages.privacy.directions import Distribution
from stages.privacy.plan import EstimatorKind
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import EncodedSet
from stages.records.features import Features
from stages.records.token_rows import IGNORED, TokenRow, TokenRows
from stages.trainable.adapters import attach
from stages.trainable.settings import Trainable
from stages.training.allocations import storage_of
from stages.training.fake_tensors import without_values
from stages.training.learner import Learner
from stages.training.optimizer import Optim
from stages.training.step_memory import StepMemory, unpriced
from stages.training.synthetic_rows import Shape
from stages.vlm.activations import recompute_activations
from stages.vlm.attribution import first_axis
from stages.vlm.family import Precision, family_of, outline
from stages.vlm.sharding import shard_layers

WEIGHTS, LEARNED = "frozen weights", "weights that learn"
MARGIN = 0.1
"""Share of a GPU's memory that is left free, where nothing else is said."""
MOST_ROWS = 1024
"""No larger micro-batch is looked for."""
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
    keeps_tower: bool = False
    """Whether the vision tower stays, as where every step looks at images, not at their features."""
    processes: int = 1
    """GPUs that the frozen base is sharded over, of which each looks at as many rows."""
    noise_waits_aside: bool = True
    """Whether the noise that comes next lies in other memory, as it does beside a GPU."""


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
    _known: dict[int, Need] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, precision: Precision, method: Method, shape: Shape) -> "MemoryPlan":
        """Build the model that ``path`` describes, without values."""
        family, model = family_of(path), outline(path, precision)
        width, axes = family.slot_width(model), len(family.positions(model, [0], []))
        encoded = _encoded(width, getattr(torch, precision), axes, int(model.config.image_token_id))
        attached = attach(model, method.trainable, family, seed=0)
        if not method.keeps_tower:
            family.forget_tower(attached)
        if method.recompute:
            recompute_activations(attached)
        model_type = str(attached.config.model_type)  # type: ignore[union-attr]
        attached = without_values(attached, _DEVICE)
        shard_layers(attached, _DEVICE, Ranks(0, method.processes))
        layers = TrainableLayers.of(attached, first_axis(model_type))
        learner = Learner(attached, family, layers, encoded, _speed(method.recompute))
        mechanism = unpriced(method.estimator, method.groups, method.noise)
        memory = StepMemory(learner, mechanism, method.noise_waits_aside)
        if method.processes > 1:  # what a first step leaves behind is not a step's
            memory.parts([shape] * method.rows_per_unit, method.rows_per_unit, method.optim)
        return cls(memory, method, shape, _weights(attached))

    @property
    def tokens_of_row(self) -> int:
        """Return the length of a row."""
        return self.shape.words + self.shape.slots

    def need(self, rows: int) -> Need:
        """Return what a step needs that takes ``rows`` rows at once; several of one unit stay together."""
        if rows not in self._known:
            parts = self.memory.parts([self.shape] * rows, self.method.rows_per_unit, self.method.optim)
            self._known[rows] = Need(rows, {**self.weights, **parts})
        return self._known[rows]

    def largest(self, limit: int) -> Need | None:
        """Return the need of the most whole units that stay within ``limit`` bytes; None: not one does.

        Not more than ``MOST_ROWS`` rows.

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
            if fits.rows >= MOST_ROWS:
                return fits
            probe = self.need(min(fits.rows + min(more * unit, _GROWTH * fits.rows), _whole(MOST_ROWS, unit)))


def _whole(rows: int, unit: int) -> int:
    return -(-rows // unit) * unit


def _encoded(width: int, dtype: torch.dtype, axes: int, image_token_id: int) -> EncodedSet:
    """Return a set that says how rows are made, with no image in it."""
    none = np.zeros(0, dtype=np.int64)
    features = Features((torch.zeros(0, width, dtype=dtype),), none, none, none)
    row = TokenRow((0,), (IGNORED,), ((0,),) * axes, (), 0, 0)
    return EncodedSet(features, TokenRows.of([row]), ("",), 0, image_token_id, 0)


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
        found[LEARNED if value.requires_grad else WEIGHTS] += storage_of(value).nbytes()
    return found


@contextmanager
def as_many(processes: int) -> Iterator[None]:
    """Let a model be sharded within over processes that there are not."""
    if processes == 1:
        yield
        return
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=processes)
    try:
        yield
    finally:
        distributed.destroy_process_group()
