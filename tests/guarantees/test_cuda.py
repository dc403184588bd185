"""On a CUDA device: the CPU's gradients, sample and noise, a limit that is kept, and bits that repeat."""

import os
import shutil
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
import world
from checkout import edit_params
from choices import optim, pruning
from learners import learner_of
from runs import ADAPTER, stage, started, steps_begun, the_folder, undisturbed
from safetensors.torch import load_file

from benchmarks.llava_shaped import Size, frozen_model
from benchmarks.step_cost import ARMS, units_of
from benchmarks.step_cost import learner_of as large
from benchmarks.tiny_families import load_trained, write_family
from models import PRUNED, load_float64, rows, speed, trainable
from stages.core.ranks import ALONE, Ranks
from stages.core.seed import Seed
from stages.core.speed import use
from stages.privacy.clipping import ClippedSum
from stages.privacy.clipping_rule import Clipping
from stages.privacy.noise import add_noise
from stages.privacy.preflight import Subject
from stages.privacy.prepared_noise import PreparedNoise
from stages.privacy.stream import RunKey, Streams
from stages.privacy.unit_gradients import Norms
from stages.records.features import Features
from stages.training.estimators import clipped_gradient_sum
from stages.training.intents import Intents
from stages.training.learner import Learner
from stages.training.loop import Choices, train
from stages.training.memory import GIB, within_memory
from stages.training.preparation import learner_for
from stages.training.run_folder import RunFolder
from stages.vlm.attribution import segments_of
from stages.vlm.encoder import encode_set
from stages.vlm.synthetic import SyntheticRow, synthetic_inputs, text_losses

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
EXACT, AGREE = 1e-5, 1e-6
IMAGES, UNITS = ([2, 1, 0, 1], [[0, 1], [2], [3]])
"""Images of each row; rows of each unit."""


@pytest.fixture(scope="module", autouse=True)
def settled():
    """Settle CUDA as every stage does, and leave the process as it was."""
    use(speed(device="cuda"))
    yield
    torch.use_deterministic_algorithms(False)


def subject_of(model, layers) -> Subject:
    def inputs(chosen):
        questions = [SyntheticRow(row, IMAGES[row], 4 + row) for row in chosen]
        return synthetic_inputs(model.config, questions)

    return Subject(
        model,
        layers,
        UNITS,
        lambda chosen: text_losses(model, inputs(chosen)),
        lambda chosen, owners: segments_of(model, inputs(chosen), np.array(owners)),
    )


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.cpu() - expected.cpu()).norm() / expected.cpu().norm())


@pytest.mark.parametrize("parts", [("lm",), ("lm", "projector", "vision")], ids=" ".join)
@pytest.mark.parametrize("name", ["LLaVA (CLIP)", "SmolVLM", "Qwen2-VL"])
def test_norms_and_clipped_sums_are_those_of_autograd_and_of_the_cpu(tmp_path, name, parts):
    model, layers = load_trained(write_family(name, tmp_path), parts)
    subject = subject_of(model, layers)
    units = range(len(UNITS))
    on_cpu = subject.gradients(units)
    cpu_norms_U = on_cpu.norms_U()
    clipping = Clipping(float(cpu_norms_U.median()))
    cpu_sum_P = on_cpu.clipped_sum(clipping).sum_P
    model.cuda()
    slow_UP = torch.stack([subject.slow_gradient(unit) for unit in units])
    norms_U = slow_UP.norm(dim=1)
    slow_P = (clipping.clip / norms_U).clamp(max=1) @ slow_UP
    for norms in get_args(Norms):
        found = subject.gradients(units, norms)
        clipped = found.clipped_sum(clipping).sum_P
        assert clipped.is_cuda and clipped.dtype == torch.float64
        assert distance(found.norms_U(), norms_U) <= EXACT
        assert distance(found.stacked(), slow_UP) <= EXACT
        assert distance(clipped, slow_P) <= EXACT
        assert distance(found.norms_U(), cpu_norms_U) <= AGREE
        assert distance(clipped, cpu_sum_P) <= AGREE
    assert distance(slow_UP.sum(dim=0), slow_P) > 0.01, "negative control: clipping does something"


@pytest.mark.parametrize("rule", ["flat", "automatic"])
def test_a_unit_that_is_not_finite_adds_nothing(tiny_llava, rule):
    learner = learner_of(tiny_llava, rows(3), PRUNED, device="cuda")
    units = learner.encoded.rows_by_unit()
    expected = clipped_gradient_sum(learner, units[1:], Clipping(0.1, rule)).sum_P
    learner.encoded.features[learner.encoded.rows[0].images[0]][0, 0] = float("nan")
    found = clipped_gradient_sum(learner, units, Clipping(0.1, rule)).sum_P
    assert expected.isfinite().all() and distance(found, expected) <= AGREE


def test_recomputed_activations_and_small_micro_batches_give_the_same_sum(tiny_llava):
    sums = []
    for more in ({}, {"recompute_activations": True}, {"micro_batch": 2}):
        learner = learner_of(tiny_llava, rows(4, rows_per_unit=2), PRUNED, device="cuda", **more)
        sums.append(clipped_gradient_sum(learner, learner.encoded.rows_by_unit(), Clipping(0.1)).sum_P)
    assert distance(sums[1], sums[0]) <= 1e-12
    assert distance(sums[2], sums[0]) <= AGREE


def test_noise_has_the_bits_of_the_cpus_and_is_on_the_device():
    sizes = {"a": 70_001, "b": 3}
    noise = {}
    for device in ("cpu", "cuda"):
        with PreparedNoise(world.STREAMS, sizes, 2, device) as prepared:
            noise[device] = [prepared.at(step) for step in range(2)]
    for here, there in zip(noise["cpu"], noise["cuda"], strict=True):
        assert there.standard_P.is_cuda and torch.equal(here.standard_P, there.standard_P.cpu())
    assert not torch.equal(noise["cpu"][0].standard_P, noise["cuda"][1].standard_P.cpu())
    sum_P = torch.randn(70_004, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here = add_noise(ClippedSum(sum_P, 0.3), 1.7, noise["cpu"][0]).sum_P
    there = add_noise(ClippedSum(sum_P.cuda(), 0.3), 1.7, noise["cuda"][0]).sum_P
    assert there.is_cuda and distance(there, here) <= 1e-15


@dataclass(frozen=True)
class Noticing(Learner):
    """A learner that notes the rows it is asked for, and may fail when asked once too often."""

    asked: list = field(default_factory=list)
    most: int = 10**9
    failure: BaseException = field(default_factory=KeyboardInterrupt)

    def losses(self, chosen):
        if len(self.asked) == self.most:
            raise self.failure
        self.asked.append(tuple(chosen))
        return super().losses(chosen)


def made(path: Path, device: str, **more) -> Noticing:
    """Return what stage finetune learns with, in float32, ready and tried."""
    stage_like = SimpleNamespace(
        trainable=trainable(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "down_proj")),
        model=SimpleNamespace(precision="float32"),
        seed=Seed(public=0, start=0),
        backbone=path,
        optim=optim(),
    )
    encoded = encode_set(load_float64(path), rows(world.UNITS, rows_per_unit=3), PRUNED)
    encoded = replace(encoded, features=Features.of([one.float() for one in encoded.features]))
    settled = speed(device=device, micro_batch=4)
    learner = learner_for(stage_like, world.plan_of(), encoded, settled, ALONE, None)
    return Noticing(**vars(learner), **more)


def run(learner: Learner, folder: Path, streams: Streams = world.STREAMS) -> torch.Tensor:
    """Train to the end, from the checkpoint in ``folder`` if there is one."""
    folder.mkdir(exist_ok=True)
    place, plan = RunFolder(folder), world.plan_of()
    intents = Intents(place.intents, {"release": streams.release_id(), "plan": plan.to_json()})
    choices = Choices(optim("adam", learning_rate=0.01, schedule="cosine"), pruning("block", 0.5), 0)
    return train(plan, choices, learner, streams, intents, place, checkpoint_every=2)


def test_a_run_ends_like_the_cpus_with_the_same_units_and_another_key_elsewhere(tiny_llava, tmp_path):
    here, there = made(tiny_llava, "cpu"), made(tiny_llava, "cuda")
    start = here.trainable.flat()
    assert torch.equal(there.trainable.flat().cpu(), start)
    on_cpu, on_cuda = run(here, tmp_path / "here"), run(there, tmp_path / "there")
    assert on_cuda.is_cuda and on_cuda.isfinite().all()
    assert there.asked == here.asked and len(there.asked) > 6
    assert distance(on_cuda.cpu() - start, on_cpu - start) <= 1e-4
    other = run(made(tiny_llava, "cuda"), tmp_path / "other", Streams(RunKey(bytes(32)), "f", "finetune"))
    assert distance(other.cpu() - start, on_cpu - start) > 0.1


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), MemoryError()], ids=["stopped", "broken off"])
def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(tiny_llava, tmp_path, failure):
    whole = run(made(tiny_llava, "cuda"), tmp_path / "whole")
    first = made(tiny_llava, "cuda", most=9, failure=failure)
    with pytest.raises(type(failure)):
        run(first, tmp_path / "cut")
    assert (tmp_path / "cut/checkpoint.safetensors").exists()
    second = made(tiny_llava, "cuda")
    assert torch.equal(run(second, tmp_path / "cut"), whole)
    again = made(tiny_llava, "cuda")
    assert torch.equal(run(again, tmp_path / "again"), whole)
    assert 0 < len(second.asked) < len(again.asked), "the second part is only a part"


def test_gradients_of_a_large_batch_have_the_same_bits_each_time():
    """Attention's backward pass adds up in any order there unless it is told not to (seen on an H100)."""
    learner = large(ARMS[1], 576, 8, frozen_model(Size(device="cuda")))
    units = units_of(ARMS[1], 8)
    learner.trainable.assign(learner.trainable.flat() + 0.02)
    sums = [clipped_gradient_sum(learner, units, Clipping(1.0)).sum_P for _ in range(3)]
    assert sums[0].any() and torch.equal(sums[0], sums[1]) and torch.equal(sums[0], sums[2])


def test_a_step_stays_below_the_memory_limit_as_the_allocator_sees_it():
    free = large(ARMS[1], 144, 16, frozen_model(Size(device="cuda")))
    units = units_of(ARMS[1], 16)

    def peak(learner: Learner) -> int:
        clipped_gradient_sum(learner, units, Clipping(1.0))
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        clipped_gradient_sum(learner, units, Clipping(1.0))
        return torch.cuda.max_memory_allocated() - before

    unlimited = peak(free)
    limit = 0.4 * unlimited
    limiting = replace(free.speed, memory_limit=limit / GIB)
    limited = within_memory(replace(free, speed=limiting), world.plan_of(), optim())
    assert 1 < len(limited.shared_micro_batches(units)) < len(units)
    assert peak(limited) <= limit < unlimited
    whole = clipped_gradient_sum(free, units, Clipping(1.0)).sum_P
    assert distance(clipped_gradient_sum(limited, units, Clipping(1.0)).sum_P, whole) <= EXACT


def test_nccl_adds_up_and_hands_out_what_processes_say_to_each_other(tmp_path):
    """A world of one, whose collectives are run all the same; two processes would need two devices."""

    class Together(Ranks):
        def _together(self, act):
            act(torch.distributed)

    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    try:
        value = torch.arange(5, dtype=torch.float64, device="cuda")
        ranks = Together()
        assert torch.equal(ranks.total(value.clone()), value)
        assert torch.equal(ranks.from_leader(value.clone()), value)
        assert ranks.gathered("small") == ["small"] and ranks.to_leader([1]) == [[1]]
    finally:
        torch.distributed.destroy_process_group()


def run_stages(checkout: Path, *names: str) -> None:
    for name in names:
        done = stage(checkout, name)
        assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.slow
def test_stages_run_on_cuda_and_a_killed_finetune_ends_with_the_same_bits(built_checkout, tmp_path):
    checkout = built_checkout
    edit_params(checkout, {"device: cpu": "device: cuda", "steps: 6": "steps: 40"})
    run_stages(checkout, "ingest", "backbone", "profile", "calibrate", "encode", "plan")
    twins = [Path(shutil.copytree(checkout, tmp_path / name, symlinks=True)) for name in ("same", "other")]
    process = started(checkout, 10, "stages.finetune")
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    begun = steps_begun(checkout)
    run_stages(checkout, "finetune")
    assert 10 <= begun < 40 <= steps_begun(checkout)
    folder = the_folder(checkout)
    resumed, key = (checkout / ADAPTER).read_bytes(), (folder / "run.key").read_bytes()
    assert all(weight.isfinite().all() for weight in load_file(checkout / ADAPTER).values())
    assert undisturbed(twins[0], key, folder.name) == resumed
    assert undisturbed(twins[1], bytes(32), folder.name) != resumed, "negative control: another key"
    run_stages(checkout, "evaluate")
