"""What `make` does before anything of ours is installed."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.pipeline.conftest import REPOSITORY

SCRIPT = REPOSITORY / "pipeline/environment.sh"
TINY_PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tiny"
version = "{version}"
[project.optional-dependencies]
dev = []
[tool.setuptools]
packages = []
"""


def prepare(checkout: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the script of a checkout."""
    command = ["/bin/sh", str(checkout / "pipeline/environment.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return an empty checkout that has the script and a project without dependencies."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/environment.sh").write_text(SCRIPT.read_text())
    (tmp_path / "constraints.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text(TINY_PROJECT.format(version=1))
    return tmp_path


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Return a folder for PATH that holds only what a test puts there."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "cat").symlink_to("/bin/cat")
    (folder / "uname").symlink_to("/bin/uname")
    return folder


def stand_in(tools: Path, name: str, script: str) -> None:
    """Put a shell script into ``tools``."""
    (tools / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / name).chmod(0o755)


def test_a_missing_python_is_named(checkout: Path, tools: Path) -> None:
    answer = prepare(checkout, PATH=str(tools))
    assert answer.returncode == 1
    assert answer.stderr.startswith("dualpriv: no Python 3.11, 3.12 or 3.13 found on PATH")


def test_an_unsuitable_python_is_named(checkout: Path, tools: Path) -> None:
    stand_in(tools, "python3.10", "exit 1")
    answer = prepare(checkout, PATH=str(tools), PYTHON="python3.10")
    assert (answer.returncode, answer.stderr) == (
        1,
        "dualpriv: PYTHON=python3.10 is not a Python 3.11, 3.12 or 3.13\n",
    )


def test_a_missing_git_is_named(checkout: Path, tools: Path) -> None:
    answer = prepare(checkout, PATH=str(tools), PYTHON=sys.executable)
    assert answer.returncode == 1
    assert "apt-get install git" in answer.stderr


def test_a_missing_venv_module_is_named_with_the_package_that_brings_it(checkout: Path, tools: Path) -> None:
    stand_in(tools, "git", "exit 0")
    stand_in(tools, "python3", f'case "$*" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"')
    answer = prepare(checkout, PATH=str(tools))
    assert answer.returncode == 1
    assert "apt-get install python3-venv" in answer.stderr


def test_a_full_disk_is_told_before_anything_is_made(checkout: Path, tools: Path) -> None:
    stand_in(tools, "git", "exit 0")
    stand_in(tools, "python3", f'case "$*" in *disk_usage*) echo 1; exit ;; esac\nexec {sys.executable} "$@"')
    answer = prepare(checkout, PATH=str(tools))
    assert answer.returncode == 1
    assert "needs about 3 GB of free disk, found 1 GB" in answer.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.slow
def test_it_installs_once_and_again_after_a_change_or_a_kill(checkout: Path) -> None:
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {
        "PYTHON": sys.executable
    }
    first = prepare(checkout, **surroundings)
    assert first.returncode == 0, first.stderr
    assert "needs about 3 GB of disk" in first.stdout
    again = prepare(checkout, **surroundings)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    (checkout / "pyproject.toml").write_text(TINY_PROJECT.format(version=2))
    (checkout / ".venv/kept").touch()
    assert "making .venv" in prepare(checkout, **surroundings).stdout
    assert (checkout / ".venv/kept").exists(), "what a person put there stays"

    (checkout / ".venv/installing").touch()
    (checkout / ".venv/installed").unlink()
    assert "making .venv" in prepare(checkout, **surroundings).stdout
    assert not (checkout / ".venv/kept").exists(), "a half installation is thrown away"
    listed = subprocess.run(
        [checkout / ".venv/bin/python", "-m", "pip", "list"], capture_output=True, text=True, check=True
    )
    assert re.search(r"^tiny +2", listed.stdout, flags=re.M)


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_every_package_that_is_pinned_takes_every_python_that_is_allowed(python: str) -> None:
    allowed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python in SpecifierSet(allowed)
    installed = [*distributions()]
    assert len(installed) > 100, "pinned packages are looked at where they are installed"
    wanted = {one.name: one.metadata["Requires-Python"] or "" for one in installed}
    assert [name for name, pythons in wanted.items() if python not in SpecifierSet(pythons)] == []


def dry_run(*targets: str) -> list[str]:
    command = ["make", "--dry-run", "--no-print-directory", *targets]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()


def test_every_target_that_help_names_is_a_target() -> None:
    answer = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    targets = [line.split("\t")[0] for line in answer.stdout.splitlines()]
    assert {
        "help",
        "run",
        "test",
        "test-all",
        "lint",
        "docs",
        "dvc.yaml",
        "pretrain",
        "demonstration",
    } == set(targets)
    for target in targets:
        assert dry_run(target)


def test_make_run_is_dvc_repro_in_an_environment_of_its_own() -> None:
    assert dry_run("run") == ["sh pipeline/environment.sh", ".venv/bin/dvc repro", ".venv/bin/dualpriv show"]


def test_ci_runs_what_make_test_runs() -> None:
    last = (REPOSITORY / ".ci/run").read_text().splitlines()[-1]
    assert last == "make test"
    assert '-m "not slow"' in dry_run("test")[-1] and '-m "not slow"' not in dry_run("test-all")[-1]


def test_make_puts_its_interpreter_before_an_activated_one() -> None:
    makefile = "include Makefile\nshow:\n\t@echo $$DUALPRIV_PYTHON $$PATH\n"
    surroundings = os.environ | {
        "VIRTUAL_ENV": "/somewhere/else",
        "DUALPRIV_PYTHON": "/somewhere/else/bin/python",
    }
    answer = subprocess.run(
        ["make", "-s", "--no-print-directory", "-f", "-", "show"],
        cwd=REPOSITORY,
        input=makefile,
        capture_output=True,
        text=True,
        env=surroundings,
    )
    assert answer.stdout.startswith(f"{REPOSITORY}/.venv/bin/python {REPOSITORY}/.venv/bin:"), answer.stderr
