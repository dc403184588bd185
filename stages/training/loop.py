"""The training loop: sample, estimate, privatise, update. Says where private data ends."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.core.progress import progress
from stages.privacy.noise import NoisySum, add_noise, publish
from stages.privacy.plan import Plan
from stages.privacy.sampling import choose_rows, poisson_sample
from stages.privacy.stream import Streams
from stages.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stages.training.estimators import Learner, Units, clipped_gradient_sum, plain_gradient_sum
from stages.training.intents import Intents
from stages.training.optimizer import Optim, OptimizerState, update
from stages.training.run_folder import RunFolder
from stages.training.update_pruning import Update, updated_weights

Release = Callable[[Units, int], NoisySum]
"""From the sampled units of a step to a sum that may be published."""


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
    release = release_of(plan, learner, streams)
    rows_by_unit = learner.encoded.rows_by_unit()
    blocks = list(learner.trainable.slices().values())
    steps = plan.sampling.steps
    state = load_checkpoint(folder.checkpoint, streams.fingerprint, learner.device) or _start(
        streams, learner
    )
    with progress(streams.stage, steps) as advance:
        for step in range(state.step, steps):
            intents.record(step)
            learner.trainable.assign(state.weights_P)
            # private from here
            sampled = poisson_sample(len(rows_by_unit), plan.sampling.rate, streams.at("sampling", step))
            units = [
                choose_rows(rows_by_unit[unit], plan.rows_per_unit, streams.at("rows", step, str(unit)))
                for unit in sampled
            ]
            noisy = release(units, step)
            del sampled, units
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


def release_of(plan: Plan, learner: Learner, streams: Streams) -> Release:
    """Return how a step of ``plan`` turns sampled units into a published sum."""
    if plan.mechanism == "none":
        return lambda units, step: publish(plain_gradient_sum(learner, units))
    clip, noise_multiplier = plan.clip, plan.noise_multiplier
    assert clip is not None and noise_multiplier is not None

    def noisy(units: Units, step: int) -> NoisySum:
        return add_noise(
            clipped_gradient_sum(learner, units, clip), noise_multiplier, streams.at("noise", step)
        )

    return noisy


def _start(streams: Streams, learner: Learner) -> Checkpoint:
    weights_P = learner.trainable.flat()
    return Checkpoint(streams.fingerprint, 0, weights_P, OptimizerState.zeros(weights_P.to(torch.float32)))
