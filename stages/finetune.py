"""Encoded records + backbone + plan -> adapter and the trace of what really ran."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from stages.core.canonical import canonical_digest
from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import new_directory, read_json, sha256, write_json
from stages.core.fingerprint import ResolvedInputs
from stages.core.ranks import Ranks, joined
from stages.core.seed import Seed
from stages.core.speed import Speed, use
from stages.core.spending import Spending
from stages.ledger.ledger import Ledger
from stages.ledger.release import recorded_digest
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.plan import Plan, read_plan
from stages.privacy.priced_precision import require_priced_precision
from stages.privacy.stream import Streams
from stages.records.encoded import read_encoded
from stages.records.owner import require_owned
from stages.trainable.adapters import save_adapter
from stages.trainable.settings import Trainable
from stages.training.abandoned import was_abandoned
from stages.training.approved import approval_given
from stages.training.combinations import require_sensible
from stages.training.intents import Intents
from stages.training.key_archive import RunKeyArchive
from stages.training.loop import Choices, follow, train
from stages.training.optimizer import Optim
from stages.training.preparation import learner_for
from stages.training.run_folder import RunFolder, open_run, run_folder
from stages.training.settling import reservation, settlement
from stages.training.spending import spending_of
from stages.training.trace import trace_json
from stages.training.unfinished import make_way
from stages.training.update_pruning import Update
from stages.vlm.selection import Rule, TokenSelection
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Finetune(Stage):
    """Fine-tune under the plan. The only stage whose output depends on private training records.

    ``canaries`` decides nothing here and is fixed here: how many guesses are made later is settled before
    training, or another run is needed.
    """

    parallel: ClassVar[bool] = True
    meta: ClassVar[dict[str, Any]] = {"approve": "spend", "gpus": 1, "releases": True, "retries": 2}

    optim: Optim
    update: Update
    trainable: Trainable
    model: Model
    tokens: TokenSelection
    seed: Seed
    canaries: CanarySettings
    plan: Path = reads("data/plan.json")
    encoded: Path = reads("data/encoded/train")
    public: Path = reads("data/records/public")
    pruning: Path = reads("data/calibrate/pruning.json")
    backbone: Path = reads("models/backbone")
    adapter: Path = writes("models/adapter")
    trace: Path = writes("data/finetune/trace.json", evidence=True)

    def spending(self) -> Spending | None:
        """Return what training would reserve: every planned step."""
        plan = read_plan(read_json(self.plan), str(self.plan))
        event = plan.event(plan.sampling.steps)
        return spending_of(self, self.trace, plan.population, plan.relation, "train", event)

    def rule(self) -> Rule:
        """Return the token rule, with the budget that calibrate has chosen."""
        return self.tokens.under(read_json(self.pruning)["chosen"])

    def run(self) -> None:
        """Train from the last checkpoint, in as many processes as were started; the first one writes."""
        RunKeyArchive.load()  # refuses a broken one before anything is spent
        plan = read_plan(read_json(self.plan), str(self.plan))
        require_priced_precision(self.model.precision, plan.population)
        require_sensible(plan, self.trainable, self.update, self.optim)
        speed = use(Speed.load())
        with joined(speed.device) as ranks:
            inputs = ResolvedInputs.of(self)
            ranks.require_same(inputs.fingerprint(), "inputs")
            ranks.require_same(speed.collective(), "speed settings")
            if ranks.leads:
                self._lead(plan, inputs, speed, ranks)
            else:
                self._follow(plan, inputs.fingerprint(), speed, ranks)

    def _lead(self, plan: Plan, inputs: ResolvedInputs, speed: Speed, ranks: Ranks) -> None:
        recorded = recorded_digest(self.name(), self.trace)
        ledger = Ledger.load(make=False)
        require_owned(self.encoded, ledger.population_key(plan.population.name), plan.population.name)
        make_way(ledger, self.name(), inputs, recorded, plan.population, plan.relation)
        given_up = was_abandoned(ledger, plan.population.name)
        with open_run(self.name(), inputs.fingerprint(), recorded, given_up) as folder:
            folder.note_inputs(inputs.values)
            self._train(plan, inputs, folder, ledger, speed, ranks)

    def _train(
        self,
        plan: Plan,
        inputs: ResolvedInputs,
        folder: RunFolder,
        ledger: Ledger,
        speed: Speed,
        ranks: Ranks,
    ) -> None:
        streams = Streams(folder.run_key(), inputs.fingerprint(), self.name())
        commit = folder.commit_at_start()
        about = {"release": streams.release_id(), "plan": plan.to_json(), "commit": commit}
        intents = Intents(folder.intents, about)
        approval = approval_given(inputs.fingerprint())
        asked = reservation(plan, self.name(), streams.release_id(), approval)
        ledger.reserve(plan.population, plan.relation, asked)
        learner = learner_for(self, plan, read_encoded(self.encoded), speed, ranks, folder.diagnostics)
        choices = Choices(self.optim, self.update, self.seed.start)
        weights_P = train(plan, choices, learner, streams, intents, folder, speed.checkpoint_every)
        learner.trainable.assign(weights_P)
        with new_directory(self.adapter) as directory:
            save_adapter(
                learner.model,
                directory,
                base=self.model.hub or self.model.path.as_posix(),
                revision=self.model.revision,
            )
        trace = trace_json(
            plan,
            release=streams.release_id(),
            fingerprint=inputs.fingerprint(),
            plan_digest=canonical_digest(plan.to_json()),
            begun=intents.begun(),
            adapter={file.name: sha256(file) for file in sorted(self.adapter.iterdir())},
            code=inputs.code_digest(),
            commit=commit,
            versions=inputs.values["versions"],
        )
        write_json(self.trace, trace)
        ledger.settle(plan.population.name, settlement(plan, trace))
        folder.finish(self.trace)

    def _follow(self, plan: Plan, identity: str, speed: Speed, ranks: Ranks) -> None:
        learner = learner_for(self, plan, read_encoded(self.encoded), speed, ranks, None)
        first_step = ranks.gathered(0)[0]  # from the leader, who has made the run's folder by then
        streams = Streams(run_folder(self.name(), identity).known_key(), identity, self.name())
        follow(plan, self.update, learner, streams, first_step)


if __name__ == "__main__":
    main(Finetune)
