"""The report in a real browser: on a phone, in the dark, on paper, by keyboard, and asking nobody."""

from dataclasses import replace
from pathlib import Path

import pytest

from stages.core.files import read_json
from stages.reporting.page import SECTIONS, render_page
from tests.browser.conftest import Look
from tests.stages.reporting.finished_run import REPOSITORY, write_run
from tests.stages.reporting.test_card import choices
from tests.stages.reporting.test_page import CHARTS, evidence_in

pytestmark = pytest.mark.slow

MOST_BYTES = 5 * 1000**2
BAD = """<!doctype html><title>bad</title>
<style>p { color: #999; background: #fff } :focus { outline: none }</style>
<p>faint</p><a href="#x">a link</a><div style="width: 3000px">wide</div><figure><svg></svg></figure>
<details><summary>more</summary><p>hidden</p></details><img src="http://127.0.0.1:9/x.png">"""


@pytest.fixture(scope="module")
def report(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a small run whose layer, budgets and pictures are those of the recorded pass."""
    root = tmp_path_factory.mktemp("browser") / "checkout"
    write_run(root, tiny_llava, kinds=("comparison", "digit", "parity"))
    profile, pruning = "data/profile/profile.json", "data/calibrate/pruning.json"
    given = replace(
        evidence_in(root),
        importance=read_json(REPOSITORY / profile),
        pruning=read_json(REPOSITORY / pruning),
    )
    file = root / "report.html"
    file.write_text(render_page(given, choices()))
    return file


def test_nothing_is_asked_for_and_nothing_goes_wrong(report: Path, look: Look) -> None:
    looked = look(report)
    assert looked.errors == [] and looked.asked_elsewhere(report.as_uri()) == []
    assert report.stat().st_size < MOST_BYTES


def test_every_section_shows_and_every_chart_is_drawn(report: Path, look: Look) -> None:
    page = look(report).page
    for name, heading in SECTIONS.items():
        found = page.locator(f"h2#{name}")
        assert found.is_visible() and found.inner_text() == heading
    assert page.locator("figure > svg[role=img]").count() == CHARTS + 1, "bytes of a step are counted here"
    assert page.locator("figure > img").count() == 2
    assert page.get_by_role("img").count() == CHARTS + 3, "each has a name that is read out"
    assert look(report).empty_drawings() == []


def test_every_link_and_table_is_reached_by_tab_with_a_visible_focus(report: Path, look: Look) -> None:
    looked = look(report)
    assert looked.not_reached_by_tab() == []
    page = looked.page
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_nobody_scrolls_sideways(report: Path, look: Look, width: int) -> None:
    looked = look(report, width)
    looked.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert looked.beyond_the_edge() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(report: Path, look: Look, scheme: str) -> None:
    looked = look(report, 1280, scheme)
    looked.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert looked.low_contrast() == []
    paper = looked.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_paper_shows_everything_on_white(report: Path, look: Look) -> None:
    looked = look(report, 1280, "dark")
    assert looked.hidden_text() != [], "on a screen, tables of numbers are folded"
    looked.page.emulate_media(media="print", color_scheme="dark")
    assert looked.hidden_text() == []
    assert looked.low_contrast() == []
    assert looked.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert looked.page.pdf(format="A4").startswith(b"%PDF")


def test_a_bad_page_is_caught_on_every_count(tmp_path: Path, look: Look) -> None:
    """The control: each of the looks above finds what is wrong with this page."""
    file = tmp_path / "bad.html"
    file.write_text(BAD)
    looked = look(file, 375)
    assert looked.errors and looked.asked_elsewhere(file.as_uri()) == ["http://127.0.0.1:9/x.png"]
    assert looked.low_contrast() and looked.beyond_the_edge() and looked.empty_drawings()
    assert any("a link" in each for each in looked.not_reached_by_tab())
    assert looked.hidden_text() == ["hidden"]
