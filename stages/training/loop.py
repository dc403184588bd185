"""The training loop: sample, estimate, privatise, update. Says where private data ends."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.core.progress import progress
from stages.privacy.plan import Plan
from stages.privacy.stream import Streams
from stages.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stages.training.estimators import Learner
from stages.training.intents import Intents, way_out
from stages.training.mechanism import Mechanism
from stages.training.optimizer import Optim, OptimizerState, update
from stages.training.run_folder import RunFolder
from stages.training.update_pruning import Update, updated_weights


@dataclass(frozen=True)
class Choices:
    """The public choices of a run that decide its result and nothing about its privacy."""

    optim: Optim
    update: Update
    seed: int


def train(
    plan: Plan,
    choices: Choices,
    learner: Learner,
    streams: Streams,
    intents: Intents,
    folder: RunFolder,
    checkpoint_every: int,
) -> Tensor:
    """Run the planned steps from the last checkpoint and return the trained weights, shape (P,).

    Guarantee: what is returned, saved or shown is a function of the noisy sums of ``plan.sampling.steps``
    Poisson-sampled steps and of public values: the event ``plan.event(plan.sampling.steps)``. A run killed
    at any moment and resumed returns the same bits.
    """
    mechanism = Mechanism.of(plan)
    rows_by_unit = learner.encoded.rows_by_unit()
    blocks = list(learner.trainable.slices().values())
    steps = plan.sampling.steps
    state = load_checkpoint(folder.checkpoint, streams.fingerprint, learner.device) or _start(
        streams, learner
    )
    if not 0 <= state.step <= steps:
        raise ValueError(f"{folder.checkpoint} is at step {state.step} of {steps}: {way_out(folder.path)}")
    with progress(streams.stage, steps) as advance:
        for step in range(state.step, steps):
            intents.record(step, mechanism.to_json())
            learner.trainable.assign(state.weights_P)
            # private from here
            units = mechanism.sample(rows_by_unit, streams, step)
            noisy = mechanism.release(learner, units, streams, step)
            del units
            # public from here
            is_updated_P = updated_weights(noisy, blocks, choices.update, seed=choices.seed, step=step)
            weights_P, optimizer = update(
                state.weights_P,
                state.optimizer,
                (noisy.sum_P / plan.sampling.expected_batch).to(state.optimizer.first_P.dtype),
                is_updated_P,
                choices.optim,
                choices.optim.rate_at(step, steps),
            )
            state = Checkpoint(streams.fingerprint, step + 1, weights_P, optimizer)
            if state.step % checkpoint_every == 0 or state.step == steps:
                save_checkpoint(folder.checkpoint, state)
            advance(state.step)
    return state.weights_P


def _start(streams: Streams, learner: Learner) -> Checkpoint:
    weights_P = learner.trainable.flat()
    return Checkpoint(streams.fingerprint, 0, weights_P, OptimizerState.zeros(weights_P.to(torch.float32)))
