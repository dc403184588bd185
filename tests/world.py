"""What several processes compute together: run as ``python -m world`` in each, the leader writes the results.

Environment: WORLD_MODEL (a tiny LLaVA), WORLD_RESULTS (a JSON file), WORLD_PARTS (names of functions below).
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from choices import optim, planned, pruning
from learners import learner_of

from models import PRUNED, rows
from stages.core.ranks import ALONE, Ranks, joined
from stages.privacy.plan import Plan
from stages.privacy.sampling import poisson_sample
from stages.privacy.stream import RunKey, Streams
from stages.training.intents import Intents
from stages.training.learner import Learner
from stages.training.loop import Choices, follow, train
from stages.training.mechanism import Mechanism
from stages.training.memory import within_memory
from stages.training.run_folder import RunFolder
from stages.training.update_pruning import Update
from stages.vlm.sharding import shard_base

UNITS, STEPS, SAMPLED = 11, 6, 20
EVERYTHING, STANDING_OUT = pruning(), pruning("accumulated", 0.4, warmup_steps=2)
STREAMS = Streams(RunKey(bytes(range(32))), "f", "finetune")


@cache
def plan_of() -> Plan:
    return planned(steps=STEPS, expected_batch=5.0)


def world_learner(
    ranks: Ranks, *, kind: str = "lora", shard: bool = False, recompute: bool = False
) -> Learner:
    return learner_of(
        Path(os.environ["WORLD_MODEL"]),
        rows(UNITS, rows_per_unit=3),
        PRUNED,
        kind=kind,
        prepare=lambda model: shard_base(model, "cpu", ranks) if shard else None,
        ranks=ranks,
        micro_batch=4,
        shard_base=shard,
        recompute_activations=recompute,
    )


def total(learner: Learner, units: Sequence[Any] | None = None) -> list[float]:
    """Return the clipped sum of all units, or of some."""
    chosen = learner.encoded.rows_by_unit() if units is None else units
    found = Mechanism.of(plan_of()).total(learner, chosen, 0)
    return found.sum_P.tolist()


def sampled(
    ranks: Ranks, streams_of: Callable[[Ranks], Streams] = lambda ranks: STREAMS
) -> list[list[list[int]]]:
    """Return the units that each process looks at, by step."""
    steps = range(SAMPLED)
    mine = [poisson_sample(1000, 0.1, streams_of(ranks).at("sampling", step)).tolist() for step in steps]
    shares = [ranks.gathered(list(ranks.share(units))) for units in mine]
    return shares


def noise(learner: Learner) -> list[float]:
    """Return the released sum of a step that drew nobody."""
    mechanism = Mechanism.of(plan_of())
    empty = mechanism.total(learner, [], 0)
    with mechanism.prepared_noise(learner.trainable, STREAMS, STEPS) as prepared:
        return mechanism.release(empty, prepared, 5).sum_P.tolist()


def whole_run(learner: Learner, section: Update = EVERYTHING) -> list[float]:
    """Return the weights after a few steps of plain SGD, in float64."""
    plan = plan_of()
    if not learner.ranks.leads:
        follow(plan, section, learner, STREAMS, learner.ranks.gathered(0)[0])
        return []
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        intents = Intents(run.intents, {"release": STREAMS.release_id(), "plan": plan.to_json()})
        choices = Choices(optim(), section, 0)
        return train(plan, choices, learner, STREAMS, intents, run, checkpoint_every=1).tolist()


@dataclass(frozen=True)
class EveryoneTakesAll(Ranks):
    """Broken on purpose: units are not divided."""

    def share(self, items: Any) -> Any:
        return items


@dataclass(frozen=True)
class EveryoneAddsNoise(Ranks):
    """Broken on purpose: every process adds the step's noise to its part of the sum, the leader once more."""

    def total(self, value: torch.Tensor) -> torch.Tensor:
        return super().total(value + torch.tensor(noise(world_learner(ALONE))))


def faulty(ranks: Ranks) -> dict[str, Any]:
    """Return results of processes that work together wrongly."""
    learner = world_learner(ranks)
    return {
        "every process takes all": total(replace(learner, ranks=EveryoneTakesAll(ranks.rank, ranks.world))),
        "every process adds noise": noise(replace(learner, ranks=EveryoneAddsNoise(ranks.rank, ranks.world))),
        "every process samples for itself": sampled(
            ranks, lambda ranks: Streams(RunKey(bytes([ranks.rank] * 32)), "f", "finetune")
        ),
    }


def sharded(ranks: Ranks) -> dict[str, Any]:
    """Return results with the frozen base cut up among the processes."""
    learner, recomputing = world_learner(ranks, shard=True), world_learner(ranks, shard=True, recompute=True)
    limited = replace(learner.speed, memory_limit=2e-3)
    cut = sum(hasattr(weight, "device_mesh") for weight in learner.model.parameters())
    return {
        "cut weights": cut,
        "total": total(learner),
        "total of one unit": total(learner, learner.encoded.rows_by_unit()[:1]),
        "total recomputed": total(recomputing),
        "total within memory": total(within_memory(replace(learner, speed=limited), plan_of(), optim())),
        "weights": whole_run(learner),
        "weights of an accumulated support": whole_run(learner, STANDING_OUT),
    }


def whole(ranks: Ranks) -> dict[str, Any]:
    """Return results with the whole model in each process."""
    learner = world_learner(ranks)
    return {
        "sampled": sampled(ranks),
        "total": total(learner),
        "total of one unit": total(learner, learner.encoded.rows_by_unit()[:1]),
        "total of none": total(learner, []),
        "noise": noise(learner),
        "weights": whole_run(learner),
        "weights of an accumulated support": whole_run(learner, STANDING_OUT),
    }


def beside(ranks: Ranks) -> dict[str, Any]:
    """Return results of a side network beside a base in each process, and beside one that is cut up."""
    cut, recomputing = (
        world_learner(ranks, kind="side", shard=True, recompute=recompute) for recompute in (False, True)
    )
    return {
        "cut weights": sum(hasattr(weight, "device_mesh") for weight in cut.model.parameters()),
        "total": total(world_learner(ranks, kind="side")),
        "total sharded": total(cut),
        "total of one unit sharded": total(cut, cut.encoded.rows_by_unit()[:1]),
        "total recomputed": total(recomputing),
    }


PARTS = {"whole": whole, "sharded": sharded, "beside": beside, "faulty": faulty}


def main() -> None:
    """Compute what was asked for."""
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        found = {name: PARTS[name](ranks) for name in os.environ["WORLD_PARTS"].split(",")}
        if ranks.leads:
            Path(os.environ["WORLD_RESULTS"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
