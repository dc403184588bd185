"""What goes through the model in a step, micro-batch after micro-batch, in every process alike."""

from collections.abc import Iterator

from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch, Units
from stages.training.synthetic_rows import idle_batch


def runs_of(learner: Learner, units: Units) -> Iterator[tuple[Learner, MicroBatch, bool]]:
    """Yield what goes through the model, batch after batch, and whether its result counts for nothing.

    Where the frozen base is sharded, every process runs the model equally often, for each run gathers its
    weights from all; who has fewer batches than others runs it idly on random rows.
    """
    batches = learner.shared_micro_batches(units)
    most = learner.ranks.most(len(batches)) if learner.speed.shard_base else len(batches)
    yield from ((learner, batch, False) for batch in batches)
    for _ in range(most - len(batches)):
        yield *idle_batch(learner), True
