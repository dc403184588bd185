"""A user's mistake is one line and exit code 2, a bug is a traceback, a signal leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STAGE = '''
import time
from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, writes
from stages.core.entry import main
from stages.core.files import new_directory


@dataclass(frozen=True, kw_only=True)
class Section:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError(f"example.number must not be negative, got {self.number}")


@dataclass(frozen=True, kw_only=True)
class Example(Stage):
    """An example."""

    example: Section
    out: Path = writes("out")

    def run(self) -> None:
        with new_directory(self.out) as building:
            (building / "secret").write_text("half")
            %s


if __name__ == "__main__":
    main(Example)
'''


def checkout(tmp_path: Path, action: str, params: str = "example: {number: 1}\n") -> list[str]:
    """Write a checkout with one stage that does ``action``, and return the command that runs it."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__init__.py").touch()
    (tmp_path / "stages" / "core").symlink_to(ROOT / "stages" / "core")
    (tmp_path / "stages" / "example.py").write_text(STAGE % action)
    (tmp_path / "params.yaml").write_text(params)
    return [sys.executable, "-m", "stages.example"]


def run(
    tmp_path: Path, action: str, params: str = "example: {number: 1}\n"
) -> "subprocess.CompletedProcess[str]":
    """Run a stage that does ``action``, as DVC would."""
    return subprocess.run(
        checkout(tmp_path, action, params), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )


def test_a_stage_that_ends_well_exits_0_and_knows_its_name(tmp_path: Path) -> None:
    done = run(tmp_path, "print(self.name())")
    assert (done.returncode, done.stdout, done.stderr) == (0, "example\n", "")
    assert (tmp_path / "out" / "secret").exists()


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ("raise ValueError('rate is 7: make it smaller')", "rate is 7: make it smaller"),
        ("raise KeyError('lacks key rate')", "lacks key rate"),
        ("raise TypeError('rate must be a number')", "rate must be a number"),
        ("raise ValueError('two\\nlines')", "two lines"),
        ("open('no such file')", "no such file is missing: run `dvc repro` (or `dvc pull`) to make it"),
        (
            "raise OSError(28, 'No space')",
            "no space left on disk (out): free some and run it again",
        ),
    ],
)
def test_a_mistake_of_the_users_is_one_line_and_exit_code_2(
    action: str, sentence: str, tmp_path: Path
) -> None:
    done = run(tmp_path, action)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"stages.example: {sentence}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ("example: {number: -1}\n", "example.number must not be negative, got -1"),
        (
            "example: {number: x}\n",
            "params.yaml: section 'example', key 'number' must be of type int, got 'x'",
        ),
        ("other: {}\n", "params.yaml: section 'example' is missing"),
        ("example: {number: 1\n", "params.yaml is not valid YAML"),
    ],
)
def test_a_mistake_in_params_is_one_line_and_exit_code_2(params: str, sentence: str, tmp_path: Path) -> None:
    done = run(tmp_path, "pass", params)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"stages.example: {sentence}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "bug", ["int('x')", "{}['a']", "len(5)", "assert False", "import json; json.loads('[')"]
)
def test_a_bug_keeps_its_traceback(bug: str, tmp_path: Path) -> None:
    done = run(tmp_path, bug)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_half_written_directory(number: signal.Signals, code: int, tmp_path: Path) -> None:
    command = checkout(tmp_path, "print('running', flush=True); time.sleep(60)")
    stage = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    assert stage.stdout is not None
    assert stage.stdout.readline() == "running\n"
    stage.send_signal(number)
    errors = stage.communicate(timeout=60)[1]
    assert stage.returncode == code
    assert "Traceback" not in errors
    assert not [entry.name for entry in tmp_path.iterdir() if "out" in entry.name]


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "stages.example"], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_stage_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    checkout(tmp_path, "print('running', flush=True); time.sleep(60)")
    reading, writing = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=tmp_path, stdout=subprocess.PIPE, stderr=writing, text=True
    )
    os.close(writing)
    assert parent.stdout is not None
    assert int(parent.stdout.readline()) > 0
    parent.kill()
    parent.communicate(timeout=60)
    with os.fdopen(reading) as errors:
        assert errors.read() == "stages.example: stopped\n"  # and no more: the last writer is gone
    assert not [entry.name for entry in tmp_path.iterdir() if "out" in entry.name]
