"""Planted canaries -> an empirical lower bound on epsilon, to be held against the claimed one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json, sha256, write_json
from stages.core.speed import Speed, use
from stages.evaluation.losses import fall_by_unit, losses_of_rows
from stages.privacy.canary_evidence import canaries_json, in_words, read_canaries
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.one_run_bound import Guesses, guess
from stages.privacy.plan import read_plan
from stages.records.encoded import EncodedSet, read_encoded
from stages.records.owner import read_owner
from stages.records.store import read_units
from stages.trainable.adapters import load_adapter
from stages.vlm.family import load
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Canaries(Stage):
    """Guess from the tuned model which canaries were planted, and bound epsilon by how often that is right.

    What it writes depends on people through the adapter alone, which is charged: canaries are made up, and
    who of them was planted hangs on a key. So it spends nothing more.
    """

    canaries: CanarySettings
    model: Model
    plan: Path = reads("data/plan.json")
    train: Path = reads("data/records/train")
    all_canaries: Path = reads("data/records/canaries")
    trained_on: Path = reads("data/encoded/train")
    encoded: Path = reads("data/encoded/canaries")
    backbone: Path = reads("models/backbone")
    adapter: Path = reads("models/adapter")
    found: Path = writes("data/canaries/canaries.json", evidence=True)

    def run(self) -> None:
        """Guess that the canaries whose loss fell most were planted, and those whose fell least were not."""
        plan = read_plan(read_json(self.plan), str(self.plan))
        adapter = {file.name: sha256(file) for file in sorted(self.adapter.iterdir())}
        found = canaries_json(self._guesses(), self.canaries.guesses_of_each(), plan.delta, adapter)
        write_json(self.found, found)
        print(f"canaries: {in_words(read_canaries(found, str(self.found)), plan.epsilon)}", flush=True)

    def _guesses(self) -> Guesses:
        encoded, each = read_encoded(self.encoded), self.canaries.guesses_of_each()
        if not encoded.rows:
            return Guesses(0, 0, 0)
        if read_owner(self.train) != read_owner(self.trained_on):
            raise ValueError(f"{self.train} is of another population than {self.trained_on}: run `dvc repro`")
        planted = set(read_units(self.train))
        is_in_M = np.array([unit in planted for unit in read_units(self.all_canaries)])
        return guess(self._fall(encoded), is_in_M, each, each)

    def _fall(self, encoded: EncodedSet) -> NDArray[np.float64]:
        """Return by how much training lowered the loss of each canary, in the order of the set, (M,)."""
        speed = use(Speed.load())
        loaded = load(self.backbone, device=speed.device, precision=self.model.precision)
        arguments = (loaded.family, encoded, speed.micro_batch)
        before_R = losses_of_rows("canaries before", loaded.model, *arguments)
        after_R = losses_of_rows(
            "canaries after", load_adapter(loaded.model, self.adapter, loaded.family), *arguments
        )
        return fall_by_unit(before_R, after_R, encoded)


if __name__ == "__main__":
    main(Canaries)
