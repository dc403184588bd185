"""Train and score one arm in memory, by the library functions of stages finetune and evaluate."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from stages.core.files import read_json
from stages.core.params import read_params
from stages.core.speed import Speed, use
from stages.evaluation.accuracy import accuracy_by_kind
from stages.privacy.plan import Plan
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import EncodedSet
from stages.trainable.adapters import attach
from stages.training.learner import Learner
from stages.training.loop import Choices
from stages.training.rehearsal import Rehearsal, rehearse
from stages.vlm.attribution import first_axis
from stages.vlm.family import load
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule, TokenSelection


class Settings(Rehearsal):
    """A run of ``params.yaml``, and others that differ from it in one place."""

    @classmethod
    def read(cls) -> "Settings":
        """Read ``params.yaml`` in the current directory."""
        return cls.of(read_params())

    def as_kind(self, kind: str) -> "Settings":
        """Return the settings with another estimator."""
        return replace(self, estimator=replace(self.estimator, kind=kind))

    def as_prune(self, prune: str) -> "Settings":
        """Return the settings with another update pruning."""
        return replace(self, update=replace(self.update, prune=prune))

    def as_epsilon(self, epsilon: float) -> "Settings":
        """Return the settings with another target."""
        return replace(self, target=replace(self.target, epsilon=epsilon))

    def as_expected_batch(self, expected_batch: float) -> "Settings":
        """Return the settings with another public divisor of the noisy sum."""
        return replace(self, sampling=replace(self.sampling, expected_batch=expected_batch))


@dataclass(frozen=True)
class Outcome:
    """What one run reached."""

    accuracy: dict[str, float]
    seconds: float
    """Training alone."""


def calibrated_rules() -> tuple[Rule, Rule]:
    """Return (all tokens, the rule that stage calibrate chose)."""
    chosen = read_json(Path("data/calibrate/pruning.json"))["chosen"]
    published = TokenSelection(select="dominant_contextual", merge="cluster", fusion_noise=0.0)
    return Rule(select="all", merge="none", **chosen), published.under(chosen)


def load_backbone(settings: Settings) -> tuple[Loaded, Speed]:
    """Load the resolved backbone and set threads."""
    speed = use(Speed.load())
    return load(Path("models/backbone"), device=speed.device, precision=settings.model.precision), speed


def learner_of(settings: Settings, speed: Speed, train_set: EncodedSet, seed: int) -> Learner:
    """Return a fresh model with adapters over ``train_set``."""
    loaded = load(Path("models/backbone"), device=speed.device, precision=settings.model.precision)
    model = attach(loaded.model, settings.trainable, loaded.family, seed)
    layers = TrainableLayers.of(model, first_axis(model.config.model_type))
    return Learner(model, loaded.family, layers, train_set, speed)


def run_arm(
    settings: Settings, plan: Plan, speed: Speed, train_set: EncodedSet, heldout: EncodedSet, seed: int
) -> Outcome:
    """Train under ``plan`` with a fresh run key and score on ``heldout``."""
    learner, seconds = trained(settings, plan, speed, train_set, seed)
    return Outcome(score(learner.model, learner.family, heldout, speed), seconds)


def trained(
    settings: Settings, plan: Plan, speed: Speed, train_set: EncodedSet, seed: int
) -> tuple[Learner, float]:
    """Train under ``plan`` with a fresh run key; return the tuned model and the seconds of training."""
    learner = learner_of(settings, speed, train_set, seed)
    return learner, rehearse(learner, plan, Choices(settings.optim, settings.update, seed))


def score(model: torch.nn.Module, family: object, heldout: EncodedSet, speed: Speed) -> dict[str, float]:
    """Return exact-answer accuracy by kind."""
    found = accuracy_by_kind("score", model, family, heldout, speed.micro_batch)
    return {kind: accuracy.correct / accuracy.rows for kind, accuracy in found.items()}
