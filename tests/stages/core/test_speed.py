"""Speed comes from params.yaml and the environment; anything that is no such value is refused by name."""

from pathlib import Path

import pytest

from stages.core.speed import PREFIX, Speed, use

PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("device", "cuda", "cuda"),
        ("micro_batch", "64", 64),
        ("recompute_activations", "true", True),
        ("shard_base", "false", False),
        ("memory_limit", "1.5", 1.5),
        ("memory_limit", "null", None),
        ("processes", "4", 4),
    ],
)
def test_the_environment_overrides_every_key(monkeypatch, name, text, value):
    monkeypatch.setenv(PREFIX + name.upper(), text)
    assert getattr(Speed.load(PARAMS), name) == value


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("micro_batch", "many", "DUALPRIV_SPEED_MICRO_BATCH must be a whole number, got 'many'"),
        ("micro_batch", "1.5", "DUALPRIV_SPEED_MICRO_BATCH must be a whole number"),
        ("micro_batch", "null", "DUALPRIV_SPEED_MICRO_BATCH must be a whole number"),
        ("shard_base", "1", "DUALPRIV_SPEED_SHARD_BASE must be true or false, got '1'"),
        ("memory_limit", "all", "DUALPRIV_SPEED_MEMORY_LIMIT must be a number or null, got 'all'"),
        ("memory_limit", "0", "speed.memory_limit must be positive, got 0"),
        ("memory_limit", "nan", "speed.memory_limit must be positive"),
        ("processes", "0", "section 'speed' needs positive counts"),
    ],
)
def test_other_values_are_refused_by_name(monkeypatch, name, text, sentence):
    monkeypatch.setenv(PREFIX + name.upper(), text)
    with pytest.raises(ValueError, match=sentence):
        Speed.load(PARAMS)


def test_processes_on_one_machine_have_a_device_and_cores_of_their_own(monkeypatch):
    import torch

    threads = torch.get_num_threads()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("DUALPRIV_SPEED_DEVICE", "cuda")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    try:
        assert use(Speed.load(PARAMS)).device == "cuda:1"
        assert torch.get_num_threads() == 3
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
