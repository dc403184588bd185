"""The graph that the runner and the flow follow is the one that DVC reads from dvc.yaml."""

from pathlib import Path

import pytest

from pipeline.dvc_graph import read_steps


def test_every_stage_comes_after_what_it_needs(small_pipeline: Path) -> None:
    steps = read_steps(small_pipeline)
    names = [step.name for step in steps]
    assert sorted(names) == ["account", "by_hand", "count", "start"]
    for step in steps:
        assert all(names.index(up) < names.index(step.name) for up in step.upstream)


def test_a_step_carries_what_the_stage_class_says(small_pipeline: Path) -> None:
    steps = {step.name: step for step in read_steps(small_pipeline)}
    assert steps["account"].upstream == ("by_hand", "count")
    assert steps["count"].summary == "Count up from the number."
    assert [name for name, step in steps.items() if step.frozen] == ["by_hand"]
    assert [name for name, step in steps.items() if step.releases] == ["count"]
    assert {name: step.retries for name, step in steps.items()} == {
        "start": 0,
        "count": 1,
        "by_hand": 0,
        "account": 0,
    }


def test_a_target_brings_only_what_is_upstream_of_it(small_pipeline: Path) -> None:
    assert [step.name for step in read_steps(small_pipeline, ["count"])] == ["start", "count"]


def test_an_unknown_target_is_refused_with_the_known_ones(small_pipeline: Path) -> None:
    with pytest.raises(ValueError, match=r"no stage \['fintune'\]; stages: \['account', "):
        read_steps(small_pipeline, ["fintune"])


def test_a_dvcfile_that_dvc_refuses_is_a_mistake_and_not_a_crash(small_pipeline: Path) -> None:
    (small_pipeline / "dvc.yaml").write_text("stages: [")
    with pytest.raises(ValueError, match="dvc.yaml"):
        read_steps(small_pipeline)
