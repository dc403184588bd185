"""Make a stage's model ready to learn: load, adapt, shard, fit the memory, and try the engine on it."""

from pathlib import Path
from typing import Protocol

from stages.core.ranks import Ranks
from stages.core.seed import Seed
from stages.core.speed import Speed
from stages.privacy.plan import Plan
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import EncodedSet
from stages.trainable.adapters import attach
from stages.trainable.settings import Trainable
from stages.training.learner import Learner
from stages.training.memory import within_memory
from stages.training.preflight import require_alone, require_exact
from stages.vlm.activations import recompute_activations
from stages.vlm.attribution import first_axis
from stages.vlm.family import load
from stages.vlm.sharding import shard_base
from stages.vlm.source import Model


class Training(Protocol):
    """What a training stage says of its model."""

    @property
    def trainable(self) -> Trainable:
        """Which weights learn."""

    @property
    def model(self) -> Model:
        """The precision of the frozen model."""

    @property
    def seed(self) -> Seed:
        """Where adapters start."""

    @property
    def backbone(self) -> Path:
        """The frozen model's directory."""


def learner_for(
    stage: Training, plan: Plan, encoded: EncodedSet, speed: Speed, ranks: Ranks, diagnostics: Path | None
) -> Learner:
    """Return a model with fresh adapters over ``encoded``; one on which the engine is not exact is refused.

    Every process does the same here; ``diagnostics`` is where the one that leads keeps what was measured.
    """
    loaded = load(
        stage.backbone, device="cpu" if speed.shard_base else speed.device, precision=stage.model.precision
    )
    model = attach(loaded.model, stage.trainable, loaded.family, stage.seed.public)
    if speed.shard_base:
        shard_base(model, speed.device, ranks)
    if speed.recompute_activations:
        recompute_activations(model)
    layers = TrainableLayers.of(model, first_axis(loaded.model.config.model_type))
    learner = Learner(model, loaded.family, layers, encoded, speed, ranks)
    if plan.estimator == "gradient":
        require_exact(learner, diagnostics)
    if plan.estimator == "zeroth_order":
        require_alone(learner, diagnostics)
    return within_memory(learner, plan)
