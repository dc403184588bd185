"""What is planned without values, processes or GPUs is what a real step needs that has them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from choices import optim

from models import trainable
from stages.training.gpu import GPUS, Gpu, gpu_of
from stages.training.memory_plan import LEARNED, MOST_ROWS, WEIGHTS, MemoryPlan, Method, as_many
from stages.training.synthetic_rows import Shape

SHAPE = Shape(12, 3, 16)
METHOD = Method(
    trainable=trainable(),
    estimator="gradient",
    groups="whole",
    noise="gaussian",
    rows_per_unit=2,
    optim=optim("adam"),
)
SHARDED = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from choices import optim
from models import ALL, rows, trainable
from stages.core.ranks import joined
from stages.training.allocations import Allocations, storage_of
from stages.training.learner import Learner
from stages.training.memory_plan import _encoded, _speed
from stages.training.micro_batches import Bounds
from stages.training.step_memory import unpriced
from stages.training.synthetic_rows import Shape, synthetic_learner
from stages.training.whole_step import whole_step
from stages.privacy.trainable_layers import TrainableLayers
from stages.trainable.adapters import attach
from stages.vlm.attribution import first_axis
from stages.vlm.family import load
from stages.vlm.sharding import shard_base

with joined("cpu") as ranks:
    loaded = load(Path(sys.argv[1]))
    image = loaded.model.config.image_token_id
    encoded = _encoded(loaded.family.slot_width(loaded.model), loaded.model.dtype, 1, image)
    model = attach(loaded.model, trainable(), loaded.family, seed=0)
    shard_base(model, "cpu", ranks)
    loaded.family.forget_tower(model)
    layers = TrainableLayers.of(model, first_axis("llava"))
    learner = Learner(model, loaded.family, layers, encoded, replace(_speed(False), shard_base=True), ranks)
    learner = replace(synthetic_learner(learner, [Shape(12, 3, 16)] * 4), bounds=Bounds(4, 2**62))
    units = [np.array(rows) for rows in ([0, 1], [0, 1], [2, 3], [2, 3])]  # two for each process
    step = lambda: whole_step(
        learner, units, unpriced("gradient", "whole"), optim("adam"), noise_waits_aside=True
    )
    step()
    with Allocations(model) as allocations:
        step()
    weights = sum(storage_of(value).nbytes() for value in (*model.parameters(), *model.buffers()))
    if ranks.leads:
        print("FOUND", weights, allocations.peak)
"""


def test_the_largest_micro_batch_fits_and_one_unit_more_does_not(tiny_llava: Path) -> None:
    plan = MemoryPlan.of(tiny_llava, "float32", METHOD, SHAPE)
    for rows in (2, 4, 10, 34):
        exactly = plan.need(rows).total
        assert plan.largest(exactly) == plan.need(rows)
        assert plan.largest(plan.need(rows + 2).total - 1) == plan.need(rows)
    assert plan.largest(plan.need(2).total - 1) is None
    assert plan.need(4).above_weights == plan.need(4).total - plan.weights[WEIGHTS] - plan.weights[LEARNED]


def test_no_more_rows_are_looked_for_than_anybody_asks_for(tiny_llava: Path) -> None:
    zeroth = replace(METHOD, estimator="zeroth_order", rows_per_unit=1)
    plan = MemoryPlan.of(tiny_llava, "float32", zeroth, Shape(2, 1, 0))
    largest = plan.largest(2**50)
    assert largest is not None and largest.rows == MOST_ROWS


@pytest.mark.slow
def test_a_base_sharded_over_processes_that_there_are_not_needs_what_it_needs_in_real_ones(
    tiny_llava: Path, tmp_path: Path
) -> None:
    (tmp_path / "sharded.py").write_text(SHARDED)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [*command, str(tmp_path / "sharded.py"), str(tiny_llava)],
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    weights, peak = map(int, done.stdout.partition("FOUND ")[2].split()[:2])
    with as_many(2):
        sharded = MemoryPlan.of(tiny_llava, "float32", replace(METHOD, processes=2), SHAPE)
        need = sharded.need(4)
    whole = MemoryPlan.of(tiny_llava, "float32", METHOD, SHAPE).need(4)
    assert sum(sharded.weights.values()) == weights < sum(whole.parts[part] for part in (WEIGHTS, LEARNED))
    assert need.above_weights == peak


def test_a_gpu_is_known_by_name_or_described_by_a_file(tmp_path: Path) -> None:
    assert gpu_of("a100-80gb") == GPUS["a100-80gb"]
    (tmp_path / "gpu.yaml").write_text("name: mine\nmemory_gib: 23.5\n")
    assert gpu_of(str(tmp_path / "gpu.yaml")) == Gpu(name="mine", memory_gib=23.5)
    assert gpu_of("a100-40gb").limit(0.1) == int(0.9 * 39.3 * 2**30)
    (tmp_path / "gpu.yaml").write_text("name: [")
    with pytest.raises(ValueError, match="is not valid YAML"):
        gpu_of(str(tmp_path / "gpu.yaml"))
    with pytest.raises(ValueError, match="must have memory"):
        Gpu(name="none", memory_gib=0.0)
