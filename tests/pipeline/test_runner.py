"""One stage at a time, each ended with whoever started it, and nothing tried twice but a lock."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.dvc_graph import Step, read_steps
from pipeline.runner import Runner, StageFailed, Stopped
from pipeline.stage_output import StageOutput
from tests.pipeline.conftest import processes_in

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
PATIENCE = 60.0


def step(name: str, *, frozen: bool = False) -> Step:
    return Step(name=name, summary="", upstream=(), frozen=frozen, retries=0, releases=False, approve=False)


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def steps_counted(checkout: Path) -> list[int]:
    """Return the process that took each step of the long stage so far."""
    for name in ("state", "finished"):
        file = checkout / f"scratch/count/{name}.json"
        if file.exists():
            return list(json.loads(file.read_text())[1])
    return []


def test_a_stage_runs_once_then_is_unchanged_then_comes_back_from_the_cache(small_pipeline: Path) -> None:
    runner = Runner(small_pipeline)
    heard: list[str] = []
    assert runner.run(step("start"), say=heard.append) == "ran"
    assert runner.run(step("start")) == "unchanged"
    params = small_pipeline / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("value: 1", "value: 5"))
    assert runner.run(step("start")) == "ran"
    params.write_text(text)
    assert runner.run(step("start")) == "cached"
    assert (small_pipeline / "data/number.json").read_text() == "1\n"
    assert heard[0] == "Running stage 'start':"
    assert not [line for line in heard if "git" in line or "autostage" in line or not line]


def test_a_frozen_stage_is_never_touched_even_by_force(small_pipeline: Path) -> None:
    frozen = next(one for one in read_steps(small_pipeline) if one.frozen)
    before = (small_pipeline / "dvc.yaml").stat().st_mtime_ns
    assert Runner(small_pipeline).run(frozen, force=True) == "frozen"
    assert not (small_pipeline / "dvc.lock").exists()
    assert (small_pipeline / "dvc.yaml").stat().st_mtime_ns == before


def test_a_mistake_is_told_in_the_sentence_of_the_stage(small_pipeline: Path) -> None:
    params = small_pipeline / "params.yaml"
    params.write_text(params.read_text().replace("value: 1", "value: -3"))
    with pytest.raises(StageFailed) as failure:
        Runner(small_pipeline).run(step("start"))
    assert str(failure.value) == "start: params.yaml: start.value must not be negative, got -3"
    assert failure.value.is_mistake


def test_a_killed_stage_says_the_signal_and_resumes(
    small_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_CRASH_AT", "2")
    runner = Runner(small_pipeline)
    runner.run(step("start"))
    with pytest.raises(StageFailed, match="count: killed by signal 9 after: about to crash") as failure:
        runner.run(step("count"))
    assert not failure.value.is_mistake
    seen: list[tuple[int, int]] = []
    assert runner.run(step("count"), progress=lambda done, of: seen.append((done, of))) == "ran"
    assert seen == [(3, 3)], "it went on at the step after the one that was saved"


def test_stages_find_their_interpreter_without_an_activated_environment(
    small_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert Runner(small_pipeline).run(step("start")) == "ran"


def block(checkout: Path, path: str) -> Path:
    """Pretend, in DVC's own lock file, that this living process is writing ``path``."""
    lock = checkout / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = {"pid": os.getppid(), "cmd": "dvc repro"}
    lock.write_text(json.dumps({"read": {}, "write": {str(checkout / path): holder}}))
    return lock


def test_a_lock_is_waited_for(small_pipeline: Path) -> None:
    lock = block(small_pipeline, "data/number.json")
    heard: list[str] = []

    def say(line: str) -> None:
        heard.append(line)
        if "holds the lock" in line:
            lock.write_text('{"read": {}, "write": {}}')

    assert Runner(small_pipeline).run(step("start"), say=say) == "ran"
    assert len([line for line in heard if "holds the lock" in line]) == 1


def test_a_lock_is_not_waited_for_longer_than_promised(small_pipeline: Path) -> None:
    block(small_pipeline, "data/number.json")
    with pytest.raises(StageFailed, match="is busy"):
        Runner(small_pipeline, lock_patience=0.0).run(step("start"))


def test_stopping_ends_the_stage_and_is_not_a_failure(
    small_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_SECONDS", "0.2")
    params = small_pipeline / "params.yaml"
    params.write_text(params.read_text().replace("steps: 3", "steps: 1000"))
    runner = Runner(small_pipeline)
    runner.run(step("start"))
    caught: list[BaseException] = []

    def run() -> None:
        try:
            runner.run(step("count"))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: steps_counted(small_pipeline))
    runner.stop()
    thread.join(10)
    assert [type(error) for error in caught] == [Stopped]
    assert processes_in(small_pipeline) == []
    with pytest.raises(Stopped):
        runner.run(step("count"))


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_runner_and_the_next_run_resumes(
    small_pipeline: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    params = small_pipeline / "params.yaml"
    params.write_text(params.read_text().replace("steps: 3", "steps: 40"))
    monkeypatch.setenv("SMALL_SECONDS", "0.1")
    repro = [sys.executable, "-c", "from pipeline.cli import main; main()", "repro", "count"]
    with subprocess.Popen(repro, start_new_session=True) as process:
        until(lambda: steps_counted(small_pipeline))
        process.send_signal(number)
        until(lambda: not processes_in(small_pipeline), seconds=10)
    counted = steps_counted(small_pipeline)
    assert 0 < len(counted) < 40
    monkeypatch.setenv("SMALL_SECONDS", "0")
    subprocess.run(repro, check=True)
    assert steps_counted(small_pipeline)[: len(counted)] == counted
    assert len(steps_counted(small_pipeline)) == 40
    assert (small_pipeline / "models/total.json").read_text() == "41\n"


def test_only_the_step_number_of_an_event_goes_further() -> None:
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    output = StageOutput("count", said.append, lambda done, of: steps.append((done, of)))
    output.take('@@ {"event": "progress", "step": 2, "of": 9, "loss": 0.25}')
    output.take('@@ {"event": "batch", "size": 31}')
    assert steps == [(2, 9)]
    assert said == [], "whatever else an event holds is not shown"
    output.take("@@ not an event")
    assert said == ["@@ not an event"]


def test_the_reason_is_the_last_thing_the_stage_said_else_what_dvc_said() -> None:
    output = StageOutput("count", lambda line: None, lambda done, of: None)
    output.take("ERROR: Parameters 'count' are missing from 'params.yaml'.")
    assert output.reason == "Parameters 'count' are missing from 'params.yaml'."
    output.take("Running stage 'count':")
    output.take("> exec sh pipeline/python.sh -m stages.count")
    output.take("RuntimeError: out of memory")
    output.take("ERROR: failed to reproduce 'count': failed to run: exec sh ..., exited with 1")
    assert (output.reason, output.exit_code) == ("RuntimeError: out of memory", 1)
