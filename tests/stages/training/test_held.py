"""What a run holds while it looks at units is what ``whole_step`` counts, and no more."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from choices import optim, planned, pruning
from learners import learner_of

from models import PRUNED, rows
from stages.privacy.stream import RunKey, Streams
from stages.training.intents import Intents
from stages.training.learner import Learner
from stages.training.loop import Choices, train
from stages.training.mechanism import Mechanism
from stages.training.run_folder import RunFolder
from stages.training.whole_step import whole_step


def vectors_alive(weights: int) -> int:
    """Return the bytes of all vectors of so many numbers."""
    found = {
        value.untyped_storage().data_ptr(): value.nbytes
        for value in gc.get_objects()
        if issubclass(type(value), torch.Tensor) and value.dim() == 1 and len(value) == weights
    }
    return sum(found.values())


@pytest.mark.parametrize("keeps", [False, True], ids=["as it is", "the last noisy sum is kept"])
def test_a_run_holds_no_more_than_a_step_counts(
    keeps: bool, tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, seen, kept = learner_of(tiny_llava, rows(8, 2), PRUNED, micro_batch=4), [], []
    honest, gradient = Mechanism.total, Mechanism.gradient

    def looking(self: Mechanism, learner: Learner, *given: Any, **named: Any) -> Any:
        gc.collect()
        seen.append(vectors_alive(len(learner.trainable.flat())))
        return honest(self, learner, *given, **named)

    def keeping(self: Mechanism, *given: Any) -> Any:
        noisy = gradient(self, *given)
        kept[:] = [noisy] if keeps else []
        return noisy

    monkeypatch.setattr(Mechanism, "total", looking)
    monkeypatch.setattr(Mechanism, "gradient", keeping)
    plan, folder = planned(steps=4, expected_batch=5.0), RunFolder(tmp_path)
    streams = Streams(RunKey.fresh(), "a run", "finetune")
    intents = Intents(folder.intents, {"release": streams.release_id(), "plan": plan.to_json()})
    choices = Choices(optim("adam"), pruning(), 0)
    train(plan, choices, learner, streams, intents, folder, checkpoint_every=2)
    kept.clear()
    whole_step(learner, learner.encoded.rows_by_unit(), Mechanism.of(plan), choices.optim)
    *during, counted = seen
    assert len(during) == plan.sampling.steps > 2
    assert (max(during) <= counted) == (not keeps)
