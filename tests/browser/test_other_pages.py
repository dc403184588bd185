"""The pages of ``dualpriv compare`` and ``dualpriv ledger`` in a real browser, held to what the report is."""

from pathlib import Path

import pytest

from pipeline.compare.figures import charts
from pipeline.compare.html import html_page
from pipeline.compare.page import page
from pipeline.ledger import show_command
from tests.browser.conftest import Look
from tests.pipeline.compare.test_html import CHOICES
from tests.pipeline.compare.test_table import COSTS, GRID, RUNS
from tests.pipeline.test_ledger import folder, reserve

__all__ = ["folder"]  # a fixture that every test here runs in

pytestmark = pytest.mark.slow


@pytest.fixture
def ledger(folder: Path) -> Path:
    reserve(1)
    show_command(as_json=False, html=folder / "ledger.html")
    return folder / "ledger.html"


@pytest.fixture
def compare(tmp_path: Path) -> Path:
    pictures = {f"{name}.svg": chart for name, chart in charts(RUNS, COSTS).items()}
    text = page(GRID, RUNS, COSTS, CHOICES, "a machine", Path("grid.yaml"), quick=True)
    (tmp_path / "index.html").write_text(html_page(text, pictures))
    return tmp_path / "index.html"


@pytest.mark.parametrize("name", ["ledger", "compare"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_reads_on_a_phone_by_keyboard_and_on_paper(
    name: str, scheme: str, look: Look, request: pytest.FixtureRequest
) -> None:
    file: Path = request.getfixturevalue(name)
    looked = look(file, 375, scheme)
    assert looked.errors == [] and looked.asked_elsewhere(file.as_uri()) == []
    assert looked.beyond_the_edge() == [] and looked.low_contrast() == []
    assert looked.not_reached_by_tab() == [] and looked.empty_drawings() == []
    looked.page.emulate_media(media="print")
    assert looked.hidden_text() == []
