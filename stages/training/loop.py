"""The training loop: sample, estimate, privatise, update. Says where private data ends.

One process leads: it alone records intents, draws noise, updates and saves. The others follow: they look at
their share of every step's units and nothing else.

Shapes: P trainable weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.core.progress import progress
from stages.core.ranks import RankLost, noticing_loss
from stages.core.stopping import not_stopped
from stages.privacy.noise import NoisySum
from stages.privacy.plan import Plan
from stages.privacy.stream import Streams
from stages.training.accumulated import Scores, mask_of
from stages.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stages.training.intents import Intents, way_out
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.noisy_mean import NoisyMean
from stages.training.optimizer import Optim, OptimizerState, released_weights, update
from stages.training.run_folder import RunFolder
from stages.training.shrinkage import shrunk
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
    at any moment and resumed returns the same bits. One that is told to stop saves the steps it has finished.
    """
    mechanism = Mechanism.of(plan)
    rows_by_unit = learner.encoded.rows_by_unit()
    blocks = learner.trainable.slices()
    steps = plan.sampling.steps
    saving = _Saving(folder, load_checkpoint(folder.checkpoint, streams.fingerprint, learner.device))
    state = saving.reached or _start(streams, learner, choices.optim)
    if not 0 <= state.step <= steps:
        raise ValueError(f"{folder.checkpoint} is at step {state.step} of {steps}: {way_out(folder.path)}")
    learner.ranks.gathered(state.step)  # tells the others where to begin
    learner.ranks.require_same(streams.release_id(), "run keys")
    with (
        progress(streams.stage, steps) as advance,
        mechanism.prepared_noise(learner.trainable, streams, steps) as noise,
        saving.when_stopped(steps),
    ):
        for step in range(state.step, steps):
            intents.record(step, mechanism.to_json())
            learner.trainable.assign(learner.ranks.from_leader(state.weights_P.clone()))
            support = _shared_support(choices.update, state.scores, learner, step)
            is_in_P = None if support is None else mask_of(support, blocks, state.weights_P)
            # private from here
            units = mechanism.sample(rows_by_unit, streams, step)
            total = mechanism.total(learner, units, step, support)
            released = mechanism.release(total, noise, step, is_in_P)
            del units, total
            # public from here
            noisy = mechanism.gradient(released, learner.trainable, step)
            state = saving.reached = _moved(state, noisy, is_in_P, mechanism, choices, learner, plan)
            del released, noisy  # nothing of a step is held through the next one's look but the state
            if state.step % checkpoint_every == 0 or state.step == steps:
                saving.save()
            advance(state.step)
    return released_weights(state.weights_P, state.optimizer, choices.optim, steps)


def _moved(
    state: Checkpoint,
    noisy: NoisySum,
    is_in_P: Tensor | None,
    mechanism: Mechanism,
    choices: Choices,
    learner: Learner,
    plan: Plan,
) -> Checkpoint:
    """Return the state after a step whose sum was released: nothing here is private."""
    step, steps, deviation = state.step, plan.sampling.steps, mechanism.deviation()
    blocks, scores = learner.trainable.slices(), state.scores
    mean = NoisyMean.of(noisy, plan.sampling.expected_batch, deviation)
    if choices.optim.shrink == "spectrum":
        weights = learner.trainable.parameters()
        mean = shrunk(mean, [(blocks[name], weight.shape) for name, weight in weights.items()])
    is_updated_P = is_in_P
    if is_updated_P is None:
        is_updated_P = updated_weights(
            noisy, list(blocks.values()), choices.update, seed=choices.seed, step=step
        )
    if choices.update.warms_up(step):
        scores = scores.after(noisy, deviation, blocks)
    rate = choices.optim.rate_at(step, steps)
    weights_P, optimizer = update(state.weights_P, state.optimizer, mean, is_updated_P, choices.optim, rate)
    return Checkpoint(state.fingerprint, step + 1, weights_P, optimizer, scores)


def _shared_support(
    section: Update, scores: Scores | None, learner: Learner, step: int
) -> frozenset[str] | None:
    """Return the support of a step, as the leader's scores have it, in every process; None masks nothing."""
    if not section.is_masked(step):
        return None
    blocks = learner.trainable.slices()
    chosen_B = torch.zeros(len(blocks))
    if scores is not None:
        best = scores.best(section.keep, blocks)
        chosen_B = torch.tensor([float(name in best) for name in blocks])
    chosen_B = learner.ranks.from_leader(chosen_B.to(learner.device))
    return frozenset(name for name, chosen in zip(blocks, chosen_B.tolist(), strict=True) if chosen)


def follow(plan: Plan, section: Update, learner: Learner, streams: Streams, first_step: int) -> None:
    """Look at this process's share of the units of every step from ``first_step`` to the last.

    A step begins when the leader's weights arrive, which is after its intent is on disk.
    """
    learner.ranks.require_same(streams.release_id(), "run keys")
    mechanism = Mechanism.of(plan)
    rows_by_unit = learner.encoded.rows_by_unit()
    for step in range(first_step, plan.sampling.steps):
        learner.trainable.assign(learner.ranks.from_leader(learner.trainable.flat()))
        support = _shared_support(section, None, learner, step)
        # private from here
        mechanism.total(learner, mechanism.sample(rows_by_unit, streams, step), step, support)


class _Saving:
    """What the run has reached, and which step of that is on disk."""

    def __init__(self, folder: RunFolder, saved: Checkpoint | None) -> None:
        self.folder = folder
        self.reached = saved
        self.saved_step = 0 if saved is None else saved.step

    def save(self) -> None:
        if self.reached is not None and self.reached.step > self.saved_step:
            save_checkpoint(self.folder.checkpoint, self.reached)
            self.saved_step = self.reached.step

    @contextmanager
    def when_stopped(self, steps: int) -> Iterator[None]:
        """Save finished steps on SIGTERM and Ctrl-C, and when another process was lost, and say so."""
        try:
            with noticing_loss():
                yield
        except (KeyboardInterrupt, RankLost) as error:
            with not_stopped():
                self.save()
            error.add_note(
                f"{self.saved_step} of {steps} steps are saved, and the same command goes on from there"
            )
            raise


def _start(streams: Streams, learner: Learner, optim: Optim) -> Checkpoint:
    weights_P = learner.trainable.flat()
    wide_P = weights_P.to(torch.promote_types(weights_P.dtype, torch.float32))
    scores = Scores.zeros(learner.trainable.slices())
    return Checkpoint(streams.fingerprint, 0, weights_P, OptimizerState.zeros(wide_P, optim), scores)
