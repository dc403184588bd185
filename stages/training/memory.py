"""Size micro-batches to a memory limit by running a step on random rows and counting what would be alive."""

from dataclasses import replace

import numpy as np
import torch

from stages.privacy.kept_gradients import longest_ghost
from stages.privacy.plan import Plan
from stages.records.encoded import EncodedSet
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.micro_batches import Bounds, MemoryUse
from stages.training.optimizer import Optim
from stages.training.step_memory import StepMemory, without_values_of
from stages.training.synthetic_rows import Shape, synthetic_learner

GIB = 2**30
_WAY_OUT = "raise it, set speed.recompute_activations to true, or lower estimator.rows_per_unit"
_SHORTEST = Shape(words=2, learned=1, slots=0)
_FEW, _MORE = 1, 3


def within_memory(learner: Learner, plan: Plan, optim: Optim) -> Learner:
    """Return the learner with micro-batches that stay below ``speed.memory_limit``, if there is one.

    What counts is every tensor of a step above the weights, optimizer, sums and noise included, as the
    dispatcher sees them; scratch memory inside a kernel, and fragmentation, are not seen, so leave room.

    A limit that the largest unit alone exceeds is a ValueError that says what would do.
    """
    limit = learner.speed.memory_limit
    if limit is None or not learner.encoded.rows:
        return learner
    memory, updating = memory_use(learner, plan, optim)
    rows = min(plan.rows_per_unit, max(len(rows) for rows in learner.encoded.rows_by_unit()))
    longest = int(learner.encoded.rows.lengths().max())
    needed = max(memory.bytes(rows, longest), updating)
    if needed > limit * GIB:
        if not plan.population.public:  # lengths and counts of private rows are theirs
            raise ValueError(f"one unit does not fit speed.memory_limit, {limit:g} GiB: {_WAY_OUT}")
        raise ValueError(
            f"speed.memory_limit is {limit:g} GiB, but one unit of {rows} rows can need "
            f"{needed / GIB:.3g} GiB above the weights: {_WAY_OUT}"
        )
    bounds = Bounds(learner.speed.micro_batch, learner.speed.micro_batch_tokens, memory, limit * GIB)
    return replace(learner, bounds=bounds)


def noise_waits_aside(device: str) -> bool:
    """Tell whether noise lies in other memory than the model's until it is added: so it is beside a GPU."""
    if device == "auto":
        return torch.cuda.is_available()
    return torch.device(device).type != "cpu"


def memory_use(learner: Learner, plan: Plan, optim: Optim) -> tuple[MemoryUse, int]:
    """Measure bytes per row and per padded token: a line above what rows of any length need.

    Returned beside it is what the update needs when no row is looked at.

    Bytes grow with the length no slower than linearly, but may fall where a layer turns from ghost norms to
    instantiated gradients. So the shortest and the longest row are measured, and those just
    before every such turn, and the line lies on or above all of them; units of several rows turn earlier and
    need less. Every measured batch holds one very short row, for padding costs an attention mask that rows of
    one length do without.
    """
    if not learner.speed.shard_base:  # processes gather a sharded base from one another: its step is run
        learner = without_values_of(learner)
    memory = StepMemory(learner, Mechanism.of(plan), noise_waits_aside(learner.device))
    short, long = _shapes(learner.encoded)
    ends = [_length(shape) for shape in (short, long)]
    turns = {longest_ghost(weight) for weight in learner.trainable.parameters().values()}
    shapes = [short, long]
    shapes += [_of_length(turn, long) for turn in sorted(turns) if ends[0] < turn < ends[1]]
    measured = [_fixed_and_per_row(memory, shape) for shape in shapes]
    lengths = [_length(shape) for shape in shapes]
    slope = (measured[1][1] - measured[0][1]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.0
    per_token = max(slope, 0.0)
    held, updating = memory.beside(optim)
    return MemoryUse(
        fixed=held + max(fixed for fixed, _ in measured),
        per_row=max(row - per_token * length for (_, row), length in zip(measured, lengths, strict=True)),
        per_token=per_token,
    ), updating


def _fixed_and_per_row(memory: StepMemory, shape: Shape) -> tuple[float, float]:
    few, more = (_peak(memory, [_SHORTEST] + [shape] * rows) for rows in (_FEW, _MORE))
    per_row = max(more - few, 0) / (_MORE - _FEW)
    return few - (_FEW + 1) * per_row, per_row


def _shapes(encoded: EncodedSet) -> tuple[Shape, Shape]:
    """Return the smallest and the largest row that the records' parts could make."""
    slots_R = encoded.rows.occurrences(encoded.image_token_id)
    words_R, learned = encoded.rows.lengths() - slots_R, int(encoded.rows.learned().max())
    return (
        Shape(max(int(words_R.min()), learned), learned, int(slots_R.min())),
        Shape(int(words_R.max()), learned, int(slots_R.max())),
    )


def _of_length(length: int, largest: Shape) -> Shape:
    """Return a shape of ``length`` tokens with as many visual tokens as fit."""
    least = max(_SHORTEST.words, largest.learned)
    slots = min(largest.slots, max(0, length - least))
    return Shape(max(least, length - slots), largest.learned, slots)


def _length(shape: Shape) -> int:
    return shape.words + shape.slots


def _peak(memory: StepMemory, shapes: list[Shape]) -> int:
    learner = memory.learner
    encoded = synthetic_learner(learner, shapes).encoded
    units = [np.array([row]) for row in range(len(shapes)) for _ in range(learner.ranks.world)]
    if learner.speed.shard_base:
        memory.bytes(encoded, units)  # what a first real run leaves behind is not a step's
    return memory.bytes(encoded, units)
