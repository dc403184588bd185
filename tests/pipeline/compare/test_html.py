"""The page of a comparison holds its Markdown and its charts, and nothing else."""

from base64 import b64encode
from pathlib import Path

import pytest

from pipeline.compare.figures import charts
from pipeline.compare.html import html_page
from pipeline.compare.page import page
from pipeline.compare.rehearsals import Choice
from tests.pipeline.compare.test_table import COSTS, GRID, RUNS
from tests.pipeline.conftest import REPOSITORY

CHOICES = [Choice("Dual-Priv", 8.0, ({"optim": {"learning_rate": 0.01}},), (0.8,))]


@pytest.fixture(scope="module")
def markdown() -> str:
    return page(GRID, RUNS, COSTS, CHOICES, "a machine", Path("grid.yaml"), quick=True)


def test_every_cell_and_heading_of_the_markdown_is_in_it(markdown: str) -> None:
    pictures = {f"{name}.svg": chart for name, chart in charts(RUNS, COSTS).items()}
    found = html_page(markdown, pictures)
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len(rows) > 5
    for row in rows:
        for cell in row.strip("| ").split(" | "):
            assert f">{cell.strip()}</t" in found, cell
    assert "<h1>Methods under one accountant</h1>" in found and found.count("<h1") == 1
    headings = [line.removeprefix("## ") for line in markdown.splitlines() if line.startswith("## ")]
    for number, heading in enumerate(headings):
        assert f'<h2 id="part-{number}">{heading}</h2>' in found
        assert f'<a href="#part-{number}">{heading}</a>' in found
    for chart in pictures.values():
        assert f'src="data:image/svg+xml;base64,{b64encode(chart.encode()).decode()}"' in found
    assert 'data-name="no privacy"' in found and 'src="accuracy' not in found


def test_a_tag_in_the_markdown_is_text_and_a_picture_elsewhere_is_refused() -> None:
    text = "# A <b>title</b>\n\n<script>x</script>\n\n| <i>a</i> | b |\n|---|---|\n| <u>1</u> | 2 |\n"
    found = html_page(text, {})
    assert not any(f"<{tag}>" in found for tag in ("script", "b", "i", "u"))
    assert found.count("&lt;script&gt;") == 1
    with pytest.raises(KeyError, match="http://elsewhere"):
        html_page("# T\n\n![x](http://elsewhere/x.svg)\n", {})


def test_the_recorded_comparison_has_the_page_that_its_markdown_gives() -> None:
    """Its style may be older. `dualpriv compare` writes both, and finds finished runs again."""
    folder = REPOSITORY / "benchmarks/compare"
    pictures = {f"{name}.svg": (folder / f"{name}.svg").read_text() for name in ("accuracy", "cost")}
    given = html_page((folder / "README.md").read_text(), pictures)
    assert (folder / "index.html").read_text().partition("<main")[2] == given.partition("<main")[2]
