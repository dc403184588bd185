"""From (epsilon, delta), sampling and steps to the whole mechanism, before any private gradient."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.closure import import_closure
from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json, sha256, write_json
from stages.core.provenance import versions
from stages.core.remembered import remembered
from stages.core.seed import Seed
from stages.evaluation.settings import EvaluateSettings
from stages.privacy.accounting import Target
from stages.privacy.plan import Others, beside_of
from stages.privacy.planning import plan_for, warnings_of
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling
from stages.records.data import Data
from stages.trainable.settings import Trainable
from stages.training.estimator import Estimator


@dataclass(frozen=True, kw_only=True)
class MakePlan(Stage):
    """Solve for the noise that keeps all planned steps within the privacy target."""

    privacy: Target
    population: Population
    sampling: Sampling
    estimator: Estimator
    trainable: Trainable
    data: Data
    evaluate: EvaluateSettings
    seed: Seed
    importance: Path = reads("data/profile/profile.json")
    pruning: Path = reads("data/calibrate/pruning.json")
    backbone: Path = reads("models/backbone")
    plan: Path = writes("data/plan.json", evidence=True)

    def run(self) -> None:
        """Write the plan; warn of what is allowed but silly."""
        plan = plan_for(
            self.estimator.kind,
            self.privacy,
            self.population,
            self.sampling,
            clipping=self.estimator.clipping(),
            rows_per_unit=self.estimator.rows_per_unit,
            others=self._others(),
            directions=self.estimator.directions(self.seed.start),
            noise=self.estimator.zeroth_order.noise,
        )
        for warning in warnings_of(plan, self._weights()):
            print(f"plan: WARNING: {warning}", file=sys.stderr, flush=True)
        write_json(self.plan, plan.to_json())

    def _weights(self) -> int:
        """Return how many weights learn; they are counted once, for that takes torch and the model's code."""
        root = Path(__file__).parents[1]
        code = {path.as_posix(): sha256(root / path) for path in import_closure("stages.plan", root)}
        asked = {"config": sha256(self.backbone / "config.json"), "trainable": asdict(self.trainable)}
        return int(remembered("weights", {**asked, "code": code, "versions": versions()}, self._counted))

    def _counted(self) -> int:
        from stages.trainable.adapters import count_weights
        from stages.vlm.family import family_of, outline

        return count_weights(outline(self.backbone), self.trainable, family_of(self.backbone))

    def _others(self) -> Others:
        made = [read_json(path)["charge"] for path in (self.importance, self.pruning)]
        charges = [beside_of(charge) for charge in made if charge["release"] is not None]
        return Others(
            charges=(*charges, *self.evaluate.planned()),
            composition=self.data.composition(self.privacy.relation),
        )


if __name__ == "__main__":
    main(MakePlan)
