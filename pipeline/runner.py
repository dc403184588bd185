"""Run one stage at a time as ``dvc repro --single-item NAME``, each in a process group of its own.

DVC decides whether a stage has work to do and records what it did; the runner starts it, passes its lines on,
and sees to it that nothing it started outlives it.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

from pipeline.dvc_graph import Step
from pipeline.stage_output import StageOutput
from stages.core import guard
from stages.core.progress import EVENTS

Outcome = Literal["ran", "cached", "unchanged", "frozen"]
"""Ran; taken from DVC's run cache; already up to date; left alone because it is run by hand only."""

NOTHING: Mapping[str, str] = {}
TAIL = 40
FIRST_WAIT = 0.5
LONGEST_WAIT = 10.0
LOCKED = re.compile(r"^ERROR:.*(Unable to acquire lock|is busy, it is being blocked by)")


class StageFailed(RuntimeError):
    """A stage ended badly; the message is its own last sentence."""

    def __init__(self, stage: str, reason: str, code: int | None, tail: tuple[str, ...]) -> None:
        """``code`` is the stage's own exit code, where DVC said it; ``tail`` holds its last lines."""
        super().__init__(f"{stage}: {reason}")
        self.code = code
        self.tail = tail

    @property
    def is_mistake(self) -> bool:
        """Whether the stage refused its inputs (exit code 2), so that trying again changes nothing."""
        return self.code == 2


class Stopped(RuntimeError):
    """The runner was told to stop: a cancellation, and never a reason to try again."""


class Runner:
    """Runs the stages of one checkout until it is told to stop.

    Guarantee: ``run`` returns when every process that it started and that can still print has ended. When
    this process dies in any way, even by ``kill -9``, they are told to end (Linux).
    """

    def __init__(self, root: Path, *, lock_patience: float = 300.0, grace: float = 20.0) -> None:
        """Run stages of the checkout at ``root``.

        ``lock_patience`` is how many seconds to wait for another DVC process that holds a lock; ``grace`` how
        many between asking a stage to end, so that it can save a checkpoint, and killing it.
        """
        self.root = root
        self._lock_patience = lock_patience
        self._grace = grace
        self._live: set[subprocess.Popen[str]] = set()
        self._gate = threading.Lock()
        self._stopping = threading.Event()

    def run(
        self,
        step: Step,
        *,
        say: Callable[[str], None] = print,
        progress: Callable[[int, int], None] = lambda done, of: None,
        force: bool = False,
        pull: bool = False,
        given: Mapping[str, str] = NOTHING,
    ) -> Outcome:
        """Bring ``step`` up to date; raise StageFailed or Stopped.

        ``say`` gets the lines people read and ``progress`` the public step number; ``given`` are variables
        for the stage beside those of the environment.

        Edge cases: a frozen stage is left alone: DVC would record new code beside its old outputs. A lock
        that another DVC process holds is waited for, and nothing else is tried twice.
        """
        if step.frozen:
            return "frozen"
        command = [sys.executable, "-m", "dvc", "repro", "--single-item", step.name]
        command += ["--force"] * force + ["--pull"] * pull
        return self._until_unlocked(command, step.name, say, progress, given).outcome

    def experiment(self, name: str, changes: Mapping[str, str], targets: Sequence[str]) -> None:
        """Bring ``targets`` up to date with other parameters, as a DVC experiment; raises as ``run``."""
        command = [sys.executable, "-m", "dvc", "exp", "run", "--name", name]
        for key, value in changes.items():
            command += ["--set-param", f"{key}={value}"]
        self._until_unlocked([*command, *targets], name, _unsaid, lambda done, of: None)

    def upstream(self, target: str) -> None:
        """Bring a stage and all that it needs up to date; raises as ``run``."""
        command = [sys.executable, "-m", "dvc", "repro", target]
        self._until_unlocked(command, target, _unsaid, lambda done, of: None)

    def program(self, module: str, *arguments: str, name: str) -> None:
        """Run one of our modules to its end; raises as ``run``."""
        tail: deque[str] = deque(maxlen=TAIL)
        output = StageOutput(name, tail.append, lambda done, of: None)
        code = self._follow([sys.executable, "-m", module, *arguments], name, output, deque(maxlen=0))
        if self._stopping.is_set():
            raise Stopped(f"{name}: stopped")
        if code != 0:
            raise StageFailed(name, tail[-1] if tail else f"ended with {code}", code, tuple(tail))

    def _until_unlocked(
        self,
        command: list[str],
        name: str,
        say: Callable[[str], None],
        progress: Callable[[int, int], None],
        given: Mapping[str, str] = NOTHING,
    ) -> StageOutput:
        give_up, wait = time.monotonic() + self._lock_patience, FIRST_WAIT
        while True:
            output = StageOutput(name, say, progress)
            tail: deque[str] = deque(maxlen=TAIL)
            code = self._follow(command, name, output, tail, given)
            if code == 0:
                return output
            if self._stopping.is_set():
                raise Stopped(f"{name}: stopped")
            if not any(LOCKED.match(line) for line in tail) or time.monotonic() > give_up:
                raise StageFailed(name, output.reason, output.exit_code, tuple(tail))
            say(f"{name}: another DVC process holds the lock; trying again in {wait:g} s")
            self._stopping.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def stop(self) -> None:
        """Ask every running stage to end, kill what has not ended after ``grace``, and start no other."""
        self._stopping.set()
        with self._gate:
            for process in self._live:
                _signal_group(process, signal.SIGTERM)
                killer = threading.Timer(self._grace, self._kill, (process,))
                killer.daemon = True
                killer.start()

    def _kill(self, process: subprocess.Popen[str]) -> None:
        with self._gate:
            if process in self._live:  # else its number may name another process by now
                _signal_group(process, signal.SIGKILL)

    def _follow(
        self,
        command: list[str],
        name: str,
        output: StageOutput,
        tail: deque[str],
        given: Mapping[str, str] = NOTHING,
    ) -> int:
        with self._started(command, name, given) as process:
            assert process.stdout is not None
            for line in process.stdout:  # ends when the last process of the group has closed it
                tail.append(line.rstrip())
                output.take(line.rstrip())
            return process.wait()

    @contextmanager
    def _started(
        self, command: list[str], name: str, given: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        with self._gate:
            if self._stopping.is_set():
                raise Stopped(f"{name}: stopped before it began")
            process = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, str(os.getpid()), *command],
                cwd=self.root,
                env={**environment(), **given},
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._live.add(process)
        try:
            with process:
                try:
                    yield process
                except BaseException:
                    self._end(process)
                    raise
        finally:
            with self._gate:
                self._live.discard(process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        _signal_group(process, signal.SIGTERM)
        try:
            process.communicate(timeout=self._grace)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)


def interrupted_by_sigterm() -> None:
    """Turn SIGTERM into the exception of Ctrl-C, on whose way out runners end their stages."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _unsaid(line: str) -> None:
    """Lines of many runs at once help nobody; the last ones are told where one fails."""


def environment() -> dict[str, str]:
    """Return the environment of a stage: ours, this interpreter first, unbuffered, nothing reported home."""
    here = Path(sys.executable).parent
    return os.environ | {
        "DUALPRIV_PYTHON": sys.executable,
        EVENTS: "1",
        "PATH": os.pathsep.join([str(here), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "NO_COLOR": "1",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),  # as pipeline/python.sh has it
    }


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
