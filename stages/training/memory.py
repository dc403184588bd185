"""Size micro-batches to a memory limit by running the model on random rows and counting what is alive."""

from dataclasses import replace

import numpy as np

from stages.privacy.clipping import Clipping
from stages.privacy.plan import Plan
from stages.records.encoded import IGNORED, EncodedSet
from stages.training.allocations import Allocations
from stages.training.estimators import clipped_gradient_sum, plain_gradient_sum
from stages.training.learner import Learner
from stages.training.micro_batches import Bounds, MemoryUse
from stages.training.synthetic_rows import Shape, synthetic_learner

GIB = 2**30
_SHORTEST = Shape(words=2, learned=1, images=0)
_FEW, _MORE = 1, 3


def within_memory(learner: Learner, plan: Plan) -> Learner:
    """Return the learner with micro-batches that stay below ``speed.memory_limit``, if there is one.

    What counts is every tensor above the weights, forward, backward and clipped sum, as the dispatcher sees
    them; scratch memory inside a kernel, and fragmentation, are not seen, so leave room for them.

    A limit that the largest unit alone exceeds is a ValueError that says what would do.
    """
    limit = learner.speed.memory_limit
    if limit is None or not learner.encoded.rows:
        return learner
    memory = memory_use(learner, plan)
    rows = min(plan.rows_per_unit, max(len(rows) for rows in learner.encoded.rows_by_unit()))
    longest = max(len(row.input_ids) for row in learner.encoded.rows)
    needed = memory.bytes(rows, longest)
    if needed > limit * GIB:
        raise ValueError(
            f"speed.memory_limit is {limit:g} GiB, but one unit of {rows} rows can need "
            f"{needed / GIB:.3g} GiB above the weights: raise it, set speed.recompute_activations to true, "
            "or lower estimator.rows_per_unit"
        )
    bounds = Bounds(learner.speed.micro_batch, learner.speed.micro_batch_tokens, memory, limit * GIB)
    return replace(learner, bounds=bounds)


def memory_use(learner: Learner, plan: Plan) -> MemoryUse:
    """Measure bytes per row and per padded token, at the lengths of the shortest and the longest row.

    Bytes grow with the length no slower than linearly, so between the two the line through them is a bound.
    Every measured batch holds one very short row, for padding costs an attention mask that rows of one length
    do without.
    """
    short, long = _shapes(learner.encoded)
    fixed, per_long = _fixed_and_per_row(learner, plan, long)
    per_short = _fixed_and_per_row(learner, plan, short)[1]
    lengths = [_length(learner.encoded, shape) for shape in (short, long)]
    per_token = (per_long - per_short) / (lengths[1] - lengths[0]) if lengths[1] > lengths[0] else 0.0
    per_token = max(per_token, 0.0)
    return MemoryUse(fixed=fixed, per_row=per_long - per_token * lengths[1], per_token=per_token)


def _fixed_and_per_row(learner: Learner, plan: Plan, shape: Shape) -> tuple[float, float]:
    few, more = (_peak(learner, plan, [_SHORTEST] + [shape] * rows) for rows in (_FEW, _MORE))
    per_row = max(more - few, 0) / (_MORE - _FEW)
    return few - (_FEW + 1) * per_row, per_row


def _shapes(encoded: EncodedSet) -> tuple[Shape, Shape]:
    """Return the smallest and the largest row that the records' parts could make."""
    slots = encoded.features_ISD.shape[1]
    images = [len(row.images) for row in encoded.rows]
    words = [len(row.input_ids) - slots * len(row.images) for row in encoded.rows]
    learned = [sum(label != IGNORED for label in row.labels) for row in encoded.rows]
    return (
        Shape(max(min(words), max(learned)), max(learned), min(images)),
        Shape(max(words), max(learned), max(images)),
    )


def _length(encoded: EncodedSet, shape: Shape) -> int:
    return shape.words + encoded.features_ISD.shape[1] * shape.images


def _peak(learner: Learner, plan: Plan, shapes: list[Shape]) -> int:
    synthetic = replace(synthetic_learner(learner, shapes), bounds=Bounds(len(shapes), 2**62))
    units = [np.array([row]) for row in range(len(shapes)) for _ in range(learner.ranks.world)]

    def step() -> object:
        if plan.clip is None or plan.clip_rule is None or plan.clip_groups is None:
            return plain_gradient_sum(synthetic, units)
        return clipped_gradient_sum(synthetic, units, Clipping(plan.clip, plan.clip_rule, plan.clip_groups))

    step()  # what a first run leaves behind is not a step's
    with Allocations(learner.model) as allocations:
        step()
    return allocations.peak
