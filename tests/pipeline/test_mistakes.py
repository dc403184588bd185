"""What people do wrong is told in one sentence with the way out: exit code 2, no traceback, nothing done."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, commands
from typer.main import get_command

from pipeline.cli import app
from tests.pipeline.conftest import REPOSITORY, commit_all
from tests.pipeline.test_cli import COMMAND

KEPT = ("params.yaml", "dvc.yaml", "presets", ".gitignore", ".dvcignore")
PICTURE = ("--question", "what is it ?")


@pytest.fixture
def dualpriv(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Return what runs a command in a checkout in which nothing was run."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in KEPT:
        source = REPOSITORY / name
        shutil.copytree(source, checkout / name) if source.is_dir() else shutil.copy(source, checkout / name)
    shutil.copytree(REPOSITORY / ".dvc", checkout / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    (checkout / "stages").mkdir()
    (checkout / "stages/one.py").write_text("")
    (checkout / "words.txt").write_text("no picture")
    (checkout / "sweep.yaml").write_text("grid: {privacy.epsilom: [8.0]}\n")
    subprocess.run(["git", "init", "--quiet", "."], cwd=checkout, check=True)
    commit_all(checkout)
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    return commands(capsys, monkeypatch)


CALLS: list[tuple[tuple[str, ...], str]] = [
    (("frobnicate",), "No such command 'frobnicate'"),
    (("repro", "--nope"), "No such option: --nope"),
    (("init",), "Missing option '--data'"),
    (("memory", "--gpus", "two"), "Invalid value for '--gpus'"),
    (("keys", "nope"), "No such command 'nope'"),
    (("repro", "fintune"), "dvc.yaml has no stage ['fintune']; stages: "),
    (("show",), "run `dvc repro`"),
    (("audit", "--rev", "nonsense"), "nonsense"),
    (("audit", "--rev", "HEAD"), "it cannot be audited before `dvc repro` has run"),
    (("ledger", "abandon", "0" * 32), "there is no ledger"),
    (("ledger", "export"), "ledger"),
    (("approve", "brave-newt", "--by", "Ada"), "say --by and --reason"),
    (("approve", "brave-newt", "--by", "Ada", "--reason", " "), "'reason' must be a line of 1 to 200"),
    (("preflight", "--model", "nowhere"), "nowhere"),
    (("memory", "--preset", "llava-7"), "there is no preset 'llava-7'; there are: "),
    (("memory", "--model", "nowhere"), "nowhere"),
    (("memory", "--preset", "llava-1.5-7b-1xa100", "--gpu", "b300"), "b300"),
    (("use", "llava-7"), "there is no preset 'llava-7'"),
    (("budget", "--batch", "ten", "--no-time"), "ten"),
    (("budget", "--delta", "0.5", "--weights", "1000", "--no-time"), "privacy.delta"),
    (("budget", "--picture", "a.png", "--no-time"), "name a file that ends in .svg"),
    (("export", "--to", "presets"), "presets exists already: name a new directory"),
    (("export", "--to", "tuned"), "run `dvc repro` (or `dvc pull`) to make it"),
    (("compare", "--grid", "none.yaml"), "none.yaml"),
    (("sweep", "none.yaml"), "none.yaml does not exist"),
    (("sweep", "sweep.yaml"), "sets 'privacy.epsilom', which params.yaml does not have"),
    (("predict", "--image", "none.png", *PICTURE), "image 'none.png' is not a file"),
    (("predict", "--image", "words.txt", *PICTURE), "is none of PNG, JPEG"),
    (("unseal-key", "nonsense", "--private-key", "a.pem", "--to", "key"), "nonsense"),
    (("keys", "new", "--private", "params.yaml", "--public", "b.pem"), "params.yaml"),
    (("keys", "sign", "--private", "none.pem"), "none.pem"),
    (("keys", "verify", "--public", "none.pem"), "none.pem"),
]


def files(folder: Path) -> dict[Path, bytes]:
    """Return every file but those of Git, DVC and private folders, which locks may lie in."""
    apart = {".git", ".dvc", "scratch"}
    found = [path for path in folder.rglob("*") if path.is_file() and not apart & set(path.parts)]
    return {path: path.read_bytes() for path in found}


@pytest.mark.parametrize(("call", "told"), CALLS, ids=[" ".join(call)[:60] for call, _ in CALLS])
def test_a_wrong_call_is_one_sentence(
    dualpriv: Command, tmp_path: Path, call: tuple[str, ...], told: str
) -> None:
    before = files(tmp_path)
    code, _, error = dualpriv(*call)
    assert code == 2 and error.startswith("dualpriv") and told in error, error
    assert error.count("\n") == 1 and len(error) < 600 and "Traceback" not in error
    assert files(tmp_path) == before, "nothing half written"


def edited(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edit


def test_a_server_that_does_not_answer_is_one_sentence(dualpriv: Command) -> None:
    """In a process of its own: Prefect's log would outlive what a test prints to."""
    answer = subprocess.run([*COMMAND, "approve", "brave-newt"], capture_output=True, text=True)
    told = "dualpriv: no Prefect server answers at http://127.0.0.1:9/api: start it, or set PREFECT_API_URL\n"
    assert (answer.returncode, answer.stderr) == (2, told)


INIT = ("init", "--data", "../own", "--model", "../own", "--unit", "patient")


@pytest.mark.parametrize(
    ("call", "edit", "told"),
    [
        (INIT, edited("rank: 4 ", "rank: four "), "key 'rank' must be of type int"),
        (INIT, edited("  alpha: 8.0\n", ""), "alpha"),
        (INIT, edited("  alpha: 8.0\n", "  alpha: 8.0\n  alfa: 8.0\n"), "alfa"),
        (INIT, edited("kind: lora  ", "kind: lara  "), "lara"),
        (INIT, edited("seed:\n", "seed: [\n"), "params.yaml is not valid YAML"),
        (INIT, lambda text: "", "params.yaml"),
        (("compare",), edited("max_units: 6000", "max_units: 0"), "population.max_units must be at least 1"),
        (("compare",), edited("public: true", "public: false"), "is not public"),
    ],
)
def test_a_mistake_in_params_is_one_sentence_that_names_the_key(
    dualpriv: Command, tmp_path: Path, call: tuple[str, ...], edit: Callable[[str], str], told: str
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/rows.json").write_text("[]")
    params = Path("params.yaml")
    params.write_text(edit(params.read_text()))
    code, _, error = dualpriv(*call)
    assert code == 2 and told in error and error.count("\n") == 1, error


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(
    dualpriv: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*, as_json: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.show.show_command", interrupted)
    code, _, error = dualpriv("show")
    assert code == 130 and error.endswith("the same command goes on from what is finished\n")


def every_command(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            yield from every_command(each, f"{path} {name}")
        else:
            yield f"{path} {name}", each


def test_every_command_has_an_example_and_completes() -> None:
    found = dict(every_command(get_command(app), "dualpriv"))
    assert [path for path, each in found.items() if f"Example: {path} " not in f"{each.epilog} "] == []
    assert len(found) > 15
    asked = {"_DUALPRIV_COMPLETE": "complete_bash", "COMP_WORDS": "dualpriv aud", "COMP_CWORD": "1"}
    answer = subprocess.run(COMMAND, capture_output=True, text=True, env=os.environ | asked)
    assert answer.stdout.split() == ["audit"]
