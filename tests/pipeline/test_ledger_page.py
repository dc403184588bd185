"""The ledger's page says what ``dualpriv ledger --json`` says, and asks nobody."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import DIGITS, PEOPLE, release, settlement

from pipeline.ledger import show_command
from pipeline.ledger_page import ledger_page
from stages.ledger.ledger import Ledger
from tests.pipeline.conftest import REPOSITORY
from tests.pipeline.test_ledger import folder, reserve

__all__ = ["folder"]  # a fixture that every test here runs in

HOSTILE = "<script>alert(1)</script>"


def test_the_page_has_every_population_release_and_sum(tmp_path: Path, capsys, folder: Path) -> None:
    for number in (1, 2):
        reserve(number)
    Ledger.load().settle(PEOPLE.name, settlement(1))
    reserve(3, DIGITS)
    show_command(as_json=True)
    found = json.loads(capsys.readouterr().out)
    show_command(as_json=False, html=Path("pages/ledger.html"))
    assert capsys.readouterr().out == "pages/ledger.html shows the ledger: 2 populations\n"
    page = Path("pages/ledger.html").read_text()
    people = next(each for each in found["populations"] if each["population"] == PEOPLE.name)["account"]
    for said in (
        *(release(number) for number in (1, 2, 3)),
        *(f"{people[key]:.4g}" for key in ("spent", "reserved", "remaining", "budget")),
        *(each["head"] for each in found["populations"]),
        f"{100 * people['spent'] / people['budget']:.1f}% of the limit spent",
        "40 times: Poisson sample at rate 0.125",
        "is public: releases are recorded, and nothing limits them.",
    ):
        assert said in page, said
    assert "<script" not in page and "http:" not in page


def test_a_hostile_name_is_text_and_an_empty_ledger_says_so() -> None:
    account = {
        "population": HOSTILE,
        "account": None,
        "releases": [],
        "entries": 1,
        "head": HOSTILE,
    }
    page = ledger_page({"ledger": HOSTILE, "populations": [account]}, lambda each: each["population"])
    assert "<script" not in page and page.count("&lt;script&gt;") >= 4
    empty = ledger_page({"ledger": "a place", "populations": []}, str)
    assert "Nothing is recorded yet." in empty


@pytest.mark.slow
def test_the_option_reaches_the_command_and_is_not_asked_for_beside_json(folder: Path) -> None:
    reserve(1)
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from pipeline.cli import main; main()"
    start = [sys.executable, "-c", script, "ledger"]
    done = subprocess.run([*start, "--html", "page.html"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert release(1) in Path("page.html").read_text()
    both = subprocess.run([*start, "--json", "--html", "other.html"], capture_output=True, text=True)
    assert both.returncode == 2 and "ask for one of them" in both.stderr
    assert "Traceback" not in both.stderr and not Path("other.html").exists()
