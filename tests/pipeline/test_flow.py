"""The flow runs what dvc.yaml says, tries again only what crashed, and shows the statement."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.artifacts import Artifact
from prefect.states import Failed
from prefect.testing.utilities import prefect_test_harness

from pipeline.flow import finetune, is_worth_retrying, run_stage
from pipeline.runner import StageFailed, Stopped
from tests.pipeline.test_runner import steps_counted

# Prefect 3.8 leaves sockets of its clients to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """Run Prefect's own server on a temporary database; the first start creates it and takes its time."""
    with prefect_test_harness(server_startup_timeout=180):
        yield
    gc.collect()


def test_the_flow_runs_the_graph_and_then_has_nothing_to_do(server: None, small_pipeline: Path) -> None:
    assert finetune() == {"by_hand": "frozen", "start": "ran", "count": "ran", "account": "ran"}
    shown = Artifact.get("privacy-statement")
    assert shown is not None and "| epsilon | 4 |" in str(shown.data)
    bar = Artifact.get("progress-count")
    assert bar is not None and bar.data == 100.0
    assert set(finetune().values()) == {"frozen", "unchanged"}


@pytest.mark.slow
def test_a_crash_is_tried_again_and_resumes(
    server: None, small_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_CRASH_AT", "2")
    assert finetune(targets=["count"])["count"] == "ran"
    pids = steps_counted(small_pipeline)
    assert len(pids) == 3 and len(set(pids)) == 2, "no step was taken twice"


@pytest.mark.slow
@pytest.mark.parametrize(("approval", "begun"), [("none", 1), ("person", 0)])
def test_a_mistake_is_told_once(
    server: None, small_pipeline: Path, caplog: pytest.LogCaptureFixture, approval: Any, begun: int
) -> None:
    """Where a person would be asked, the stage is refused before it begins, in the same words."""
    params = small_pipeline / "params.yaml"
    params.write_text(params.read_text().replace("steps: 3", "stepz: 3"))
    with pytest.raises(
        StageFailed, match=r"count: params.yaml: section 'count' has unknown keys \['stepz'\]"
    ):
        finetune(targets=["count", "account"], approval=approval)
    assert len([line for line in caplog.messages if line == "Running stage 'count':"]) == begun
    assert "Running stage 'account':" not in caplog.messages
    assert [record.exc_text or record.exc_info for record in caplog.records if record.exc_info] == []


@pytest.mark.slow
def test_force_runs_what_it_names_and_refuses_what_is_not_there(server: None, small_pipeline: Path) -> None:
    assert finetune(targets=["start"]) == finetune(targets=["start"], force=["start"]) == {"start": "ran"}
    with pytest.raises(ValueError, match=r"force names \['count'\]"):
        finetune(targets=["start"], force=["count"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StageFailed("count", "killed by signal 9", -9, ()), True),
        (StageFailed("count", "out of memory", 1, ()), True),
        (StageFailed("count", "params.yaml: key 'steps' is missing", 2, ()), False),
        (Stopped("count: stopped"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_a_crash_is_worth_retrying(error: BaseException, expected: bool) -> None:
    assert is_worth_retrying(run_stage, None, Failed(data=error)) is expected  # type: ignore[arg-type]
