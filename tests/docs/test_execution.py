"""The commands of docs/ are run on a small checkout, page by page, but for blocks that say why not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import environment
from documents import DOCS, REPOSITORY, Block, blocks
from ruamel.yaml import YAML

from models import picture

WHO = {
    "GIT_AUTHOR_NAME": "Somebody",
    "GIT_AUTHOR_EMAIL": "somebody@localhost",
    "GIT_COMMITTER_NAME": "Somebody",
    "GIT_COMMITTER_EMAIL": "somebody@localhost",
}
PROGRAMS = {"python": "", "dvc": "-m dvc", "dualpriv": "-m pipeline.cli"}
PATIENTS = 30
RESTORE = "git restore --staged --worktree params.yaml dvc.lock data"
"""As the page on methods says, between two of its runs."""


def prepared(checkout: Path) -> Path:
    """Give a checkout what a clone has besides, an environment with our programs, and a commit."""
    for name in ("presets", "benchmarks"):
        shutil.copytree(REPOSITORY / name, checkout / name)
    programs = checkout / ".venv/bin"
    programs.mkdir(parents=True)
    for name, options in PROGRAMS.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        (programs / name).chmod(0o755)
    shell(checkout, "git add --all && git commit --quiet -m 'as it is'")
    return checkout


def shell(checkout: Path, commands: str) -> str:
    """Run lines as a reader would, and return what they printed; one that fails ends them."""
    path = f"{checkout / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=checkout,
        env=environment(**WHO, PATH=path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_page(checkout: Path, name: str) -> str:
    """Run the blocks of a page one after the other, but for those that say why not."""
    return "".join(shell(checkout, block.text) for block in executed(name))


def executed(name: str) -> list[Block]:
    """Return the blocks of a page whose commands are run."""
    found = [block for block in blocks(DOCS / name) if block.language == "bash" and block.reason is None]
    assert found, f"{name} has no commands to run"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.md", "accounting.md", "architecture.md", "auditing.md"])
def test_the_commands_of_a_page_run(name: str, ran_checkout: Path) -> None:
    run_page(prepared(ran_checkout), name)


@pytest.mark.slow
def test_every_method_of_the_page_runs_and_is_undone_as_the_page_says(ran_checkout: Path) -> None:
    checkout = prepared(ran_checkout)
    before = (checkout / "params.yaml").read_text()
    for block in executed("methods.md"):
        for line in block.text.replace("\\\n", " ").splitlines():
            shell(checkout, line)
            assert (checkout / "params.yaml").read_text() != before
            shell(checkout, RESTORE)
            assert (checkout / "params.yaml").read_text() == before


@pytest.mark.slow
def test_the_walk_with_own_data_ends_in_an_audited_statement(built_checkout: Path) -> None:
    checkout = prepared(built_checkout)
    page = blocks(DOCS / "own-data.md")
    record = json.loads(next(block.text for block in page if block.language == "json"))[0]
    written = next(block for block in page if block.language == "yaml")
    (checkout / "clinic").mkdir()
    records = []
    for number in range(PATIENTS):
        (checkout / f"clinic/r{number}.png").write_bytes(picture(number))
        records.append(record | {"id": f"r{number}", "patient": f"p{number}", "image": f"r{number}.png"})
    (checkout / "clinic/rows.json").write_text(json.dumps(records))
    yaml = YAML()
    params = yaml.load(checkout / "params.yaml")
    merge(params, YAML(typ="safe", pure=True).load(written.text))
    yaml.dump(params, checkout / "params.yaml")
    shell(checkout, "git add params.yaml && git commit --quiet -m 'parameters of the page'")
    printed = run_page(checkout, "own-data.md")
    assert "verdict: pass" in printed
    statement = json.loads((checkout / "data/account/statement.json").read_text())
    assert statement["population"] == "clinic-2026" and 0 < statement["epsilon"] <= 8.0


def merge(into: dict[str, object], given: dict[str, object]) -> None:
    """Put the given keys into a nested mapping."""
    for key, value in given.items():
        inner = into[key]
        if isinstance(value, dict) and isinstance(inner, dict):
            merge(inner, value)
        else:
            into[key] = value
