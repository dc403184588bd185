"""The examples of docs/extending.md fit the code and do what the page says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import dvc, edit_params, environment, run
from documents import DOCS, REPOSITORY, Block, apply_edit, blocks

EXAMPLES = {
    "family": "A model family",
    "rule": "A rule that chooses",
    "trainable": "A kind of",
    "method": "A rule that prunes",
}
PAGE = DOCS / "extending.md"


def section(name: str) -> list[Block]:
    """Return the blocks below one heading."""
    text = PAGE.read_text()
    start = text.index(f"\n## {EXAMPLES[name]}")
    end = text.find("\n## ", start + 1)
    first, last = text.count("\n", 0, start), text.count("\n", 0, end if end > 0 else len(text))
    return [block for block in blocks(PAGE) if first < block.line <= last]


def extend(checkout: Path, name: str) -> None:
    """Put an example's files into a checkout and make its changes."""
    for block in section(name):
        assert block.title is not None, f"{block} names no file"
        path = checkout / block.title
        if block.language == "diff":
            path.write_text(apply_edit(block, path.read_text()))
        else:
            assert not path.exists(), f"{block} writes {block.title}, which is there"
            path.write_text(block.text)


def copied(folder: Path) -> Path:
    """Return a copy of our code, without anything that ran."""
    skip = shutil.ignore_patterns("__pycache__", "*.json", "*.md", "*.svg")
    for name in ("stages", "pipeline", "benchmarks"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=skip)
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_the_code_and_is_written_as_it_is(name: str, tmp_path: Path) -> None:
    for block in section(name):
        if block.title is not None:
            (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
        if block.language == "diff" and block.title is not None:
            shutil.copy(REPOSITORY / block.title, tmp_path / block.title)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    extend(tmp_path, name)
    written = sorted({block.title for block in section(name) if block.title})
    ruff = [sys.executable, "-m", "ruff"]
    ours = 'lint.isort.known-first-party = ["benchmarks", "pipeline", "stages"]'  # most of it is not here
    for look in (["check"], ["format", "--diff"]):
        found = subprocess.run(
            [*ruff, *look, "--config", ours, *written], cwd=tmp_path, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stdout


@pytest.mark.slow
def test_all_examples_together_pass_the_types(tmp_path: Path) -> None:
    checkout = copied(tmp_path)
    for name in EXAMPLES:
        extend(checkout, name)
    found = run(checkout, sys.executable, "-m", "mypy", "stages", check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path, tiny_llava: Path) -> None:
    checkout = copied(tmp_path)
    extend(checkout, name)
    done = subprocess.run(
        [sys.executable, f"try_{name}.py", str(tiny_llava), str(_records(tmp_path))],
        cwd=checkout,
        env=environment(PYTHONPATH=str(checkout)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"a {name}: ")


@pytest.mark.slow
def test_a_pipeline_with_all_examples_runs_from_records_to_report(
    encoded_checkout: Path, ledger_file: Path
) -> None:
    checkout = encoded_checkout
    shutil.copytree(REPOSITORY / "benchmarks", checkout / "benchmarks")
    for name in EXAMPLES:
        extend(checkout, name)
    edit_params(
        checkout,
        {
            r"select: dominant_contextual": "select: unusual",
            r"kind: lora": "kind: head",
            r"prune: block": "prune: in_turn",
        },
    )
    run(checkout, sys.executable, "-m", "pipeline.dvcfile")
    dvc(checkout, "repro")
    run(checkout, sys.executable, "-m", "pipeline.cli", "show")
    audited = run(checkout, sys.executable, "-m", "pipeline.cli", "audit", check=False)
    assert "verdict: pass" in audited.stdout, audited.stdout + audited.stderr


def _records(folder: Path) -> Path:
    from models import rows
    from stages.records.store import write_rows

    write_rows(folder / "records", rows(2), salt=None)
    return folder / "records"
