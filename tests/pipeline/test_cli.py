"""The command line is quick to help, and tells a mistake in one sentence."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()"]
HEAVY = {"torch", "transformers", "numpy", "dvc", "prefect", "sqlalchemy"}


def dualpriv(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom pipeline.cli import main\nsys.argv[1:] = ['--help']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\nprint('LOADED', *sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    text, _, loaded = answer.stdout.partition("LOADED")
    assert all(command in text for command in ("repro", "show", "audit", "predict", "unseal-key"))
    assert not HEAVY & {name.partition(".")[0] for name in loaded.split()}


def test_an_unknown_stage_is_one_sentence_and_exit_2(small_pipeline: Path) -> None:
    answer = dualpriv("repro", "fintune")
    assert answer.returncode == 2
    assert answer.stderr == "dualpriv: dvc.yaml has no stage ['fintune']; stages: " + (
        "['account', 'by_hand', 'count', 'start']\n"
    )


def test_a_refused_parameter_is_one_sentence_and_exit_2(small_pipeline: Path) -> None:
    params = small_pipeline / "params.yaml"
    params.write_text(params.read_text().replace("value: 1", "value: -1"))
    answer = dualpriv("repro", "start")
    assert answer.returncode == 2
    assert answer.stderr == "dualpriv: start: params.yaml: start.value must not be negative, got -1\n"
    assert "Traceback" not in answer.stdout


@pytest.mark.parametrize(
    "arguments", [("repro", "--no-such-option"), ("predict",), ("unseal-key",), ("frobnicate",)]
)
def test_a_wrong_call_exits_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    answer = dualpriv(*arguments)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr


def test_repro_runs_the_stages_in_order_and_then_has_nothing_to_do(small_pipeline: Path) -> None:
    first, second = dualpriv("repro"), dualpriv("repro")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    outcomes = dict(re.findall(r"^(\w+): (\w+)$", first.stdout, flags=re.M))
    assert outcomes == {"by_hand": "frozen", "start": "ran", "count": "ran", "account": "ran"}
    assert set(re.findall(r"^\w+: (\w+)$", second.stdout, flags=re.M)) == {"frozen", "unchanged"}
    again = dualpriv("repro", "--new-release", "count")
    outcomes = dict(re.findall(r"^(\w+): (\w+)$", again.stdout, flags=re.M))
    assert outcomes == {"start": "unchanged", "count": "ran"}, "a new release runs only what releases"


@pytest.mark.slow
def test_what_is_not_named_is_not_released_again(small_pipeline: Path) -> None:
    dualpriv("repro")
    for targets in ((), ("start",), ("account",)):
        again = dualpriv("repro", "--new-release", *targets)
        assert set(re.findall(r"^\w+: (\w+)$", again.stdout, flags=re.M)) <= {"frozen", "unchanged"}
