"""What settings reach is asked for once: of one process for all that is missing, and never again."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.clones import PreparedClone, Revision
from pipeline.compare.grid import read_grid
from pipeline.compare.rehearsals import Rehearsals
from pipeline.runner import StageFailed, Stopped
from stages.core.files import read_json, write_json
from stages.core.params import read_params

ROOT = Path(__file__).parents[3]
BASE = read_params(ROOT / "params.yaml")
WHOLE = read_grid(ROOT / "presets/compare.yaml")
GRID = replace(
    WHOLE,
    epsilons=(3.0, 8.0),
    starts=(0, 1, 2),
    choose_starts=(0, 1),
    methods=WHOLE.methods[:1],
    reference=WHOLE.methods[0].name,
    variants=replace(WHOLE.variants, list=()),
)


class Answering:
    """Stands for the process that trains: a run reaches its epsilon and its rate, in a number."""

    def __init__(self) -> None:
        self.asked: list[list[float]] = []

    def runner(self) -> "Answering":
        return self

    def program(self, module: str, request: str, answer: str, name: str) -> None:
        assert module == "stages.training.rehearse"
        runs = read_json(Path(request))["runs"]
        found = [run["privacy"]["epsilon"] / 100 + run["optim"]["learning_rate"] for run in runs]
        self.asked.append(found)
        write_json(Path(answer), found)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path))
    return Answering()


def rehearsals(clone: Any, base: dict[str, Any] = BASE, **changes: Any) -> Rehearsals:
    asked = Rehearsals(clone, base, GRID, "code")
    return replace(asked, **changes)


def test_each_choice_is_of_its_own_epsilon_and_the_better_setting(clone: Answering) -> None:
    done: list[None] = []
    choices = rehearsals(clone).choices(2, lambda: done.append(None))
    assert len(done) == len(clone.asked) == 2, "one process for each start"
    assert [choice.epsilon for choice in choices] == [3.0, 8.0, None]
    for choice in choices[:2]:
        assert choice.epsilon is not None
        tried = [settings["optim"]["learning_rate"] for settings in choice.tried]
        assert choice.accuracy == pytest.approx([choice.epsilon / 100 + rate for rate in tried])
        assert choice.best["optim"]["learning_rate"] == max(tried)


def test_what_was_answered_is_not_asked_again(clone: Answering) -> None:
    before = rehearsals(clone).choices(1, lambda: None)
    known = len(clone.asked)
    slower = {**BASE, "speed": {**BASE["speed"], "micro_batch": 1}, "report": {"nonprivate": "main"}}
    assert rehearsals(clone, slower).choices(1, lambda: None) == before, "these change no result"
    assert len(clone.asked) == known
    more = rehearsals(clone, grid=replace(GRID, epsilons=(1.0, 3.0, 8.0))).choices(1, lambda: None)
    assert more[1:] == before
    assert [len(runs) for runs in clone.asked[known:]] == [len(GRID.methods[0].choose)] * len(
        GRID.choose_starts
    )
    known = len(clone.asked)
    rehearsals(clone, code="other").choices(1, lambda: None)
    assert len(clone.asked) == known + len(GRID.choose_starts), "other code, other answers"


class Making:
    """Stands for a clone whose stages take as long as a test wants, and fail if it wants."""

    said: list[str]
    waits: threading.Event
    fails = False

    @classmethod
    def of(cls, root: Path, folder: Path, linked: tuple[Path, ...], commit: str) -> "Making":
        cls.said.append(f"{folder.name} of {commit}")
        return cls()

    @property
    def runner(self) -> "Making":
        return self

    def upstream(self, target: str) -> None:
        self.waits.wait(10)
        self.said.append(target)
        if self.fails:
            raise StageFailed(target, "no", 2, ())

    def stop(self) -> None:
        self.said.append("stopped")

    def remove(self) -> None:
        self.said.append("removed")


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> type[Making]:
    made = type("Made", (Making,), {"said": [], "waits": threading.Event()})
    monkeypatch.setattr("pipeline.compare.clones.Clone", made)
    return made


@pytest.mark.parametrize("fails", [False, True])
def test_a_clone_is_prepared_once_for_all_who_ask(tmp_path: Path, making: type[Making], fails: bool) -> None:
    making.fails = fails
    clone = PreparedClone(Revision(tmp_path, "abc", ()), tmp_path / "prepared")
    clone.remove()
    assert making.said == [], "nobody asked"
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(clone.runner) for _ in range(3)]
        making.waits.set()
        failures = [asked.exception() for asked in asking]
    assert [isinstance(failure, StageFailed) for failure in failures] == [fails] * 3
    clone.remove()
    assert making.said == ["prepared of abc", "calibrate", "removed"]


def test_a_clone_that_is_being_prepared_is_stopped(tmp_path: Path, making: type[Making]) -> None:
    clone = PreparedClone(Revision(tmp_path, "abc", ()), tmp_path / "prepared")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(clone.runner)
        while not making.said:
            time.sleep(0.01)
        time.sleep(0.05)
        clone.stop()
        assert making.said == ["prepared of abc", "stopped"], "it need not be ready for that"
        making.waits.set()
    early = PreparedClone(Revision(tmp_path, "abc", ()), tmp_path / "prepared")
    early.stop()
    with pytest.raises(Stopped):
        early.runner()
