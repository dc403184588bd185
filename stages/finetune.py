"""Encoded records + backbone + plan -> adapter and the trace of what really ran."""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from stages.core.canonical import canonical_json
from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import new_directory, read_json, sha256, write_json
from stages.core.fingerprint import code_digest, fingerprint
from stages.core.provenance import commit, versions
from stages.core.seed import Seed
from stages.core.speed import Speed, use
from stages.ledger.release import recorded_digest, require_new_release
from stages.privacy.plan import Plan, read_plan
from stages.privacy.stream import Streams
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import read_encoded
from stages.trainable.lora import Trainable, attach, save_adapter
from stages.training.budget import require_affordable
from stages.training.estimators import Learner
from stages.training.intents import Intents
from stages.training.loop import Choices, train
from stages.training.optimizer import Optim
from stages.training.preflight import require_exact
from stages.training.run_folder import (
    RunFolder,
    abandoned_runs,
    alone_on,
    is_begun,
    open_run,
    retired_releases,
)
from stages.training.trace import trace_json
from stages.training.update_pruning import Update
from stages.vlm.activations import recompute_activations
from stages.vlm.family import load
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Finetune(Stage):
    """Fine-tune under the plan. The only stage whose output depends on private training records."""

    meta: ClassVar[dict[str, Any]] = {"gpus": 1, "releases": True, "retries": 2}

    optim: Optim
    update: Update
    trainable: Trainable
    model: Model
    seed: Seed
    plan: Path = reads("data/plan.json")
    encoded: Path = reads("data/encoded/train")
    backbone: Path = reads("models/backbone")
    adapter: Path = writes("models/adapter")
    trace: Path = writes("data/finetune/trace.json", evidence=True)

    def run(self) -> None:
        """Train from the last checkpoint, then write adapter and trace."""
        plan = read_plan(read_json(self.plan), str(self.plan))
        if self.model.precision != "float32" and not plan.population.public:
            raise ValueError(
                f"model.precision {self.model.precision}: its rounding lets one unit change what its "
                "neighbours in a micro-batch add, which nothing prices yet; population "
                f"'{plan.population.name}' is not public, so set model.precision to float32"
            )
        with nullcontext() if plan.population.public else alone_on(self.name(), plan.population.name):
            self._run(plan)

    def _run(self, plan: Plan) -> None:
        identity = fingerprint(self)
        recorded = recorded_digest(self.name(), self.trace)
        if not is_begun(self.name(), identity, recorded):
            earlier = retired_releases(self.name(), plan.population.name)
            require_new_release(self.name(), self.adapter, plan.population, earlier=earlier)
        require_affordable(plan, abandoned_runs(self.name(), identity, plan))
        with open_run(self.name(), identity, recorded) as folder:
            self._train(plan, identity, folder)

    def _train(self, plan: Plan, identity: str, folder: RunFolder) -> None:
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        model = attach(loaded.model, self.trainable, loaded.family.LANGUAGE_MODEL, self.seed.public)
        if speed.recompute_activations:
            recompute_activations(model)
        layers = TrainableLayers.of(model, loaded.family.first_axis)
        learner = Learner(model, loaded.family, layers, read_encoded(self.encoded), speed)
        if plan.mechanism != "none":
            require_exact(learner, folder.path / "preflight.json")
        streams = Streams(folder.run_key(), identity, self.name())
        intents = Intents(folder.intents, {"release": streams.release_id(), "plan": plan.to_json()})
        choices = Choices(self.optim, self.update, self.seed.public)
        layers.assign(train(plan, choices, learner, streams, intents, folder, speed.checkpoint_every))
        with new_directory(self.adapter) as directory:
            save_adapter(
                model,
                directory,
                base=self.model.hub or self.model.path.as_posix(),
                revision=self.model.revision,
            )
        write_json(
            self.trace,
            trace_json(
                plan,
                release=streams.release_id(),
                fingerprint=identity,
                plan_digest=hashlib.sha256(canonical_json(plan.to_json())).hexdigest(),
                begun=intents.begun(),
                abandoned=abandoned_runs(self.name(), identity, plan),
                adapter={file.name: sha256(file) for file in sorted(self.adapter.iterdir())},
                code=code_digest(type(self), Path.cwd()),
                commit=commit(),
                versions=versions(),
            ),
        )
        folder.finish(self.trace)


if __name__ == "__main__":
    main(Finetune)
