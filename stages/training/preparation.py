"""Make a stage's model ready to learn: load, adapt, shard, fit the memory, and try the engine on it."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from stages.core.ranks import Ranks
from stages.core.seed import Seed
from stages.core.speed import Speed
from stages.privacy.plan import Plan
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import EncodedSet
from stages.records.store import read_rows
from stages.trainable.adapters import attach
from stages.trainable.settings import Trainable
from stages.training.learner import Learner
from stages.training.memory import within_memory
from stages.training.optimizer import Optim
from stages.training.preflight import require_alone, require_exact
from stages.training.realignment import realign
from stages.vlm.activations import recompute_activations
from stages.vlm.attribution import first_axis
from stages.vlm.encoder import encode_set
from stages.vlm.family import load
from stages.vlm.fidelity import choose_public_rows
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule
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
    def optim(self) -> Optim:
        """What keeps a state beside the weights."""

    @property
    def backbone(self) -> Path:
        """The frozen model's directory."""

    @property
    def public(self) -> Path:
        """Public records."""

    def rule(self) -> Rule:
        """Return how public rows are pruned, as the private ones were."""


def learner_for(
    stage: Training, plan: Plan, encoded: EncodedSet, speed: Speed, ranks: Ranks, diagnostics: Path | None
) -> Learner:
    """Return a model with fresh adapters over ``encoded``; one on which the engine is not exact is refused.

    Every process does the same here; ``diagnostics`` is where the one that leads keeps what was measured.
    """
    if speed.recompute_activations and stage.trainable.kind == "reversible":
        raise ValueError(
            "trainable.kind reversible keeps no layer's activations, so speed.recompute_activations has "
            "nothing to do: set it to false"
        )
    if speed.shard_base and stage.trainable.kind == "reversible":
        raise ValueError(
            "speed.shard_base has not been shown to be exact where layers run again in the backward pass of "
            "trainable.kind reversible: set it to false"
        )
    loaded = load(
        stage.backbone, device="cpu" if speed.shard_base else speed.device, precision=stage.model.precision
    )
    model = attach(loaded.model, stage.trainable, loaded.family, stage.seed.start)
    if speed.shard_base:
        shard_base(model, speed.device, ranks)
    if speed.recompute_activations:
        recompute_activations(model, backbone=not speed.shard_base)
    if stage.trainable.kind == "reversible":
        realign_on_public_rows(stage, replace(loaded, model=model), speed, ranks)
    loaded.family.forget_tower(model)
    layers = TrainableLayers.of(model, first_axis(loaded.model.config.model_type))
    learner = Learner(model, loaded.family, layers, encoded, speed, ranks)
    if plan.estimator == "gradient":
        require_exact(learner, diagnostics)
    if plan.estimator == "zeroth_order":
        require_alone(learner, diagnostics)
    return within_memory(learner, plan, stage.optim)


def realign_on_public_rows(stage: Training, loaded: Loaded, speed: Speed, ranks: Ranks) -> None:
    """Bring the start of reversible layers back to the frozen model.

    Guarantee: the weights are a function of public records, the public seed and public settings.
    """
    settings = stage.trainable.reversible.realign
    rows = choose_public_rows(read_rows(stage.public), settings.records, stage.seed.public + 2)
    off = realign(
        loaded, encode_set(loaded, rows, stage.rule()), settings, stage.seed.start, speed.micro_batch
    )
    if ranks.leads:
        print(
            f"realign: the start was {off['before']:.2%} off the frozen model and is {off['after']:.2%} off"
        )
