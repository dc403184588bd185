"""A training run on public records, in memory: to choose settings, and to measure what a step costs.

Nothing is planned, reserved or charged, for every record is public; what runs is the code of stage finetune.
"""

import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from stages.core.files import read_json
from stages.core.params import read_section
from stages.core.ranks import ALONE
from stages.core.seed import Seed
from stages.core.speed import Speed
from stages.evaluation.accuracy import accuracy_by_kind
from stages.privacy.accounting import Target
from stages.privacy.plan import Plan
from stages.privacy.planning import plan_for
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling
from stages.privacy.stream import RunKey, Streams
from stages.records.encoded import EncodedSet
from stages.trainable.settings import Trainable
from stages.training.estimator import Estimator
from stages.training.intents import Intents
from stages.training.learner import Learner
from stages.training.loop import Choices, train
from stages.training.optimizer import Optim
from stages.training.preparation import learner_for
from stages.training.run_folder import RunFolder
from stages.training.update_pruning import Update
from stages.vlm.selection import Rule, TokenSelection
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """The sections of params.yaml that a run hangs on, and the files that it reads."""

    target: Target
    population: Population
    sampling: Sampling
    estimator: Estimator
    trainable: Trainable
    update: Update
    optim: Optim
    model: Model
    seed: Seed
    tokens: TokenSelection
    backbone: Path
    public: Path
    pruning: Path
    budget: tuple[int, int] | None
    """Dominant and contextual tokens, where calibrate may choose one candidate alone; None: what it chose."""

    @classmethod
    def of(cls, params: dict[str, Any]) -> Self:
        """Read what ``params`` say; the files are those of the checkout."""
        candidates = params["calibrate"]["candidates"]
        return cls(
            target=read_section(params, "privacy", Target),
            population=read_section(params, "population", Population),
            sampling=read_section(params, "sampling", Sampling),
            estimator=read_section(params, "estimator", Estimator),
            trainable=read_section(params, "trainable", Trainable),
            update=read_section(params, "update", Update),
            optim=read_section(params, "optim", Optim),
            model=read_section(params, "model", Model),
            seed=read_section(params, "seed", Seed),
            tokens=read_section(params, "tokens", TokenSelection),
            backbone=Path("models/backbone"),
            public=Path("data/records/public"),
            pruning=Path("data/calibrate/pruning.json"),
            budget=tuple(candidates[0]) if len(candidates) == 1 else None,
        )

    def rule(self) -> Rule:
        """Return the token rule of the real run."""
        chosen = read_json(self.pruning)["chosen"]
        if self.budget is not None:
            chosen |= {"dominant": self.budget[0], "contextual": self.budget[1]}
        return self.tokens.under(chosen)

    def plan(self) -> Plan:
        """Solve for the noise of the real run."""
        return plan_for(
            self.estimator.kind,
            self.target,
            self.population,
            self.sampling,
            clipping=self.estimator.clipping(),
            rows_per_unit=self.estimator.rows_per_unit,
            directions=self.estimator.directions(self.seed.start),
            noise=self.estimator.zeroth_order.noise,
        )

    def plan_among(self, units: int) -> Plan:
        """Return the plan with a batch that so many units give, and noise that is as large beside it.

        So a small public set shows the signal and the noise of the real run.
        """
        plan = self.plan()
        batch = plan.sampling.rate * units
        noise = plan.noise_multiplier
        if noise is not None:
            noise *= batch / plan.sampling.expected_batch
        return replace(plan, noise_multiplier=noise, sampling=replace(plan.sampling, expected_batch=batch))

    def learner(self, encoded: EncodedSet, speed: Speed) -> Learner:
        """Return a fresh model with adapters over ``encoded``, prepared as for the real run."""
        return learner_for(self, self.plan(), encoded, speed, ALONE, None)

    def choices(self) -> Choices:
        """Return the public choices of the run."""
        return Choices(self.optim, self.update, self.seed.start)


@dataclass(frozen=True)
class Prepared:
    """A rehearsal's learner before its first step, for all runs that differ in what steps do with a look."""

    run: Rehearsal
    learner: Learner
    heldout: EncodedSet
    start_P: Tensor
    """What the weights that learn are before the first step, shape (P,)."""

    @classmethod
    def of(cls, run: Rehearsal, encoded: EncodedSet, heldout: EncodedSet, speed: Speed) -> Self:
        """Prepare a learner over ``encoded``; both sets are public."""
        learner = run.learner(encoded, speed)
        return cls(run, learner, heldout, learner.trainable.flat())

    def serves(self, run: Rehearsal) -> bool:
        """Tell whether ``run`` begins with the same learner: only noise, optimizer or pruning differ."""
        own = self.run
        return replace(run, target=own.target, optim=own.optim, update=own.update) == own

    def accuracy(self, run: Rehearsal) -> float:
        """Train ``run`` from the start and return the share of held-out rows that it answers exactly."""
        learner = self.learner
        learner.trainable.assign(self.start_P)
        rehearse(learner, run.plan_among(len(learner.encoded.rows_by_unit())), run.choices())
        micro_batch = learner.speed.micro_batch
        found = accuracy_by_kind("score", learner.model, learner.family, self.heldout, micro_batch)["all"]
        return found.correct / found.rows


def rehearse(learner: Learner, plan: Plan, choices: Choices) -> float:
    """Train with a fresh run key that nobody keeps; the learner holds what was learned. Returns seconds."""
    streams = Streams(RunKey.fresh(), os.urandom(16).hex(), "finetune")
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        intents = Intents(run.intents, {"release": streams.release_id(), "plan": plan.to_json()})
        start = time.perf_counter()
        every = learner.speed.checkpoint_every
        learner.trainable.assign(train(plan, choices, learner, streams, intents, run, every))
        return time.perf_counter() - start
