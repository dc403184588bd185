"""The site builds without a warning, and asks nothing from anywhere."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCS, PAGES, REPOSITORY
from ruamel.yaml import YAML

from benchmarks.pages import stale

_ASSET = re.compile(r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?([^\"' >]+)", re.I)
_LINK = re.compile(r"<link\b[^>]*>", re.I)


def linked(page: str) -> list[str]:
    """Return what a browser fetches for a page by itself; links that a person follows are none of it.

    >>> linked('<img src="a.png"><link rel="stylesheet" href="b.css"><link rel="canonical" href="c">')
    ['a.png', 'b.css']
    """
    links = [tag for tag in _LINK.findall(page) if re.search(r"rel=[\"']?(stylesheet|icon|preload)", tag)]
    return _ASSET.findall(page) + [re.findall(r"href=[\"']?([^\"' >]+)", tag)[0] for tag in links]


def test_every_page_is_in_the_navigation() -> None:
    config = (REPOSITORY / "mkdocs.yml").read_text()
    told = set(re.findall(r"[\w/-]+\.md", config))
    assert told == {page.relative_to(DOCS).as_posix() for page in [*PAGES, DOCS / "operating.md"]}


def test_figures_in_the_pages_are_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert list(stale()) == []


def test_the_reference_lists_every_stage() -> None:
    told = re.findall(r"^::: stages\.(\w+)$", (DOCS / "reference/stages.md").read_text(), re.M)
    graph = YAML(typ="safe", pure=True).load(REPOSITORY / "dvc.yaml")["stages"]
    assert set(told) == set(graph)


def test_examples_in_docstrings_become_code() -> None:
    readable = runpy.run_path(str(DOCS / "docstrings.py"))["readable"]
    said = "Add.\n\nGuarantee: it adds.\n\n>>> 1 + 1\n2"
    assert readable(said) == "Add.\n\n**Guarantee:** it adds.\n\n```pycon\n>>> 1 + 1\n2\n```"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    alone = os.environ | {
        "NO_MKDOCS_2_WARNING": "1",
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    built = subprocess.run(command, cwd=REPOSITORY, env=alone, capture_output=True, text=True)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text()
        assert not [found for found in linked(text) if re.match(r"(https?:)?//", found)], page
        for found in linked(text):
            if not found.startswith("data:"):
                inside = tmp_path / found.lstrip("/") if page.name == "404.html" else page.parent / found
                assert inside.exists(), f"{page.name} asks for {found}, which is not there"
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(@import\s+[\"']?|url\([\"']?)(https?:)?//", style.read_text()), style
