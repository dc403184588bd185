"""Every command in docs/ exists, with the options it is given there; what is not executed says why."""

import doctest
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.core
from documents import DOCS, PAGES, REPOSITORY, Block, commands, every_block
from ruamel.yaml import YAML
from typer.exceptions import TyperException

from pipeline.cli import app
from pipeline.graph import stage_classes
from stages.core.params import read_params, read_section

LANGUAGES = {"bash", "python", "pycon", "diff", "json", "yaml", "text"}
ELSEWHERE = {"git", "cp", "mkdir", "head", "export"}
"""Programs of others in the blocks: run by test_execution.py, and nothing of ours is in their options."""
DVC = {"exp run", "repro", "push", "pull", "dag", "status", "plots show"}
TOP = "benchmarks|stages|tests|pipeline|presets|docs|data|models"
BLOCKS = every_block("bash")
STAGES = {stage.name(): stage for stage in stage_classes()}


def changed(params: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key that is there."""
    at = params
    *parts, last = key.split(".")
    for part in parts:
        assert part in at, f"params.yaml has no {key}"
        at = at[part]
    assert last in at, f"params.yaml has no {key}"
    at[last] = value


def require_readable(params: dict[str, Any]) -> None:
    """Read every section as the stages do: a value that is none of its choices is a ValueError."""
    for stage in STAGES.values():
        for port in stage.ports():
            if port.role == "section" and port.key is not None:
                read_section(params, port.key, port.schema)


def dualpriv(words: list[str]) -> None:
    """Parse the arguments of ``dualpriv`` as it does, without running anything."""
    command: Any = typer.main.get_command(app)
    while isinstance(command, typer.core.TyperGroup) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no dualpriv {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


def module(words: list[str]) -> None:
    """Find a module, and the options that it is given."""
    found = importlib.util.find_spec(words[0])
    assert found is not None and found.origin, words[0]
    source = Path(found.origin).read_text()
    for option in (word for word in words[1:] if word.startswith("--")):
        assert f'"{option}"' in source or option in source, f"{words[0]} has no {option}"


def dvc(words: list[str]) -> None:
    """Find the stages, parameters and values that DVC is given."""
    name = next(name for name in DVC if " ".join(words).startswith(name))
    rest = words[len(name.split()) :]
    params = read_params(REPOSITORY / "params.yaml")
    for option, given in zip(rest, rest[1:], strict=False):
        if option == "-S":
            key, _, value = given.partition("=")
            changed(params, key, YAML(typ="safe", pure=True).load(value))
    require_readable(params)
    if name == "repro":
        assert {word for word in rest if not word.startswith("-")} <= set(STAGES)


def make(words: list[str]) -> None:
    """Find a target of the Makefile."""
    assert re.search(rf"^{words[0]}:.*##", (REPOSITORY / "Makefile").read_text(), re.M), words[0]


def require_known(words: list[str]) -> None:
    """Check one command line."""
    if words[:2] == ["python", "-m"]:
        module(words[2:])
    elif words[0] == "dualpriv":
        dualpriv(words[1:])
    elif words[0] == "dvc":
        dvc(words[1:])
    elif words[0] == "make":
        make(words[1:])
    else:
        assert words[0] in ELSEWHERE, f"no test knows the program {words[0]}"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_command_exists_with_its_options(block: Block) -> None:
    for words in commands(block):
        require_known(words)


@pytest.mark.parametrize(
    "wrong",
    [
        "dualpriv audti",
        "dualpriv audit --rve HEAD",
        "dualpriv ledger exprot",
        "dualpriv keys sign",
        "python -m benchmarks.methdos",
        "python -m benchmarks.pages --chekc",
        "dvc exp run -S privacy.epsilno=3",
        "dvc exp run -S trainable.kind=lroa",
        "dvc repro finetnue",
        "make rnu",
        "pip install dualpriv",
    ],
)
def test_a_command_that_is_not_there_is_noticed(wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError, KeyError, TyperException)):
        require_known(wrong.split())


def test_every_block_says_what_it_is_and_a_marker_stands_before_commands_only() -> None:
    for page in PAGES:
        text = page.read_text()
        fences = re.findall(r"^```(\w*).*\n(?:.*\n)*?```$", text, re.M)
        assert set(fences) <= LANGUAGES, f"{page}: {set(fences) - LANGUAGES}"
        marked = [block for block in BLOCKS if block.page == page and block.reason]
        assert text.count("<!-- not run: ") == len(marked), page


def test_files_that_are_named_are_there_or_come_from_a_stage() -> None:
    made = {port.path.as_posix() for stage in STAGES.values() for port in stage.ports() if port.path}
    made |= {"data/report/report.html", "data/account/signature.json", "data/ledger/NAME.json"}
    for page in PAGES:
        for path in re.findall(rf"`((?:{TOP})/[\w./-]*)`", page.read_text()):
            there = (REPOSITORY / path).exists() or path.rstrip("/") in made
            assert there or any(path.startswith(f"{one}/") for one in made), f"{page.name}: {path}"


def test_tests_that_a_marker_names_are_there() -> None:
    for block in BLOCKS:
        for path in re.findall(r"tests/[\w/]+\.py", block.reason or ""):
            assert (REPOSITORY / path).exists(), f"{block}: {path}"


def test_the_parameters_of_own_data_are_read_as_written() -> None:
    written = next(block for block in every_block("yaml") if block.page == DOCS / "own-data.md")
    params = read_params(REPOSITORY / "params.yaml")
    for key, value in leaves(YAML(typ="safe", pure=True).load(written.text)):
        changed(params, key, value)
    require_readable(params)
    assert params["privacy"]["delta"] < 1 / params["population"]["max_units"]


def leaves(value: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Return the dotted keys of a mapping with their values."""
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        found += leaves(inner, f"{before}{key}.") if isinstance(inner, dict) else [(f"{before}{key}", inner)]
    return found


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```pycon" in page.read_text()], ids=lambda page: page.name
)
def test_examples_in_a_page_are_true(page: Path) -> None:
    examples = "\n".join(block.text for block in every_block("pycon") if block.page == page)
    found = doctest.DocTestParser().get_doctest(examples, {}, page.name, str(page), 0)
    assert found.examples
    assert doctest.DocTestRunner().run(found).failed == 0
