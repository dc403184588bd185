"""A ledger that lacks what the checkout shows of it gives no budget."""

from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import ADD_OR_REMOVE, DIGITS, PEOPLE, reservation

from stages.core.files import write_json
from stages.ledger.evidence import ACCOUNTED, EXPORTED
from stages.ledger.ledger import Ledger
from stages.privacy.chain import chain_to_json

FILES = [ACCOUNTED, EXPORTED / "people.json"]


def reserve(number: int, population=PEOPLE) -> str:
    return Ledger.load().reserve(population, ADD_OR_REMOVE, reservation(number)).kind


def export(file: Path, population=PEOPLE) -> None:
    write_json(file, chain_to_json(population.name, Ledger.load().entries(population.name)))


def lose(ledger_file: Path) -> None:
    ledger_file.parent.rename(ledger_file.parent.with_name("lost"))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_lost_ledger_is_not_begun_again_until_it_is_restored(file: Path, ledger_file: Path) -> None:
    reserve(1)
    export(file)
    lose(ledger_file)
    with pytest.raises(ValueError, match=f"{file} has 2 entries of the ledger of population 'people'"):
        reserve(2)
    assert Ledger.load().entries(PEOPLE.name) == []
    ledger_file.unlink()
    ledger_file.parent.with_name("lost").joinpath(ledger_file.name).rename(ledger_file)
    assert reserve(2) == "reserve"


def test_an_old_copy_and_another_ledger_are_refused(ledger_file: Path) -> None:
    reserve(1)
    old = ledger_file.read_bytes()
    reserve(2)
    export(ACCOUNTED)
    ledger_file.write_bytes(old)
    with pytest.raises(ValueError, match="has 3 entries"):
        reserve(2)
    lose(ledger_file)
    ACCOUNTED.rename("kept.json")
    for number in (3, 4, 5):
        reserve(number)
    Path("kept.json").rename(ACCOUNTED)
    with pytest.raises(ValueError, match="has others or fewer"):
        reserve(6)


def test_evidence_that_is_older_than_the_ledger_is_no_obstacle() -> None:
    reserve(1)
    export(ACCOUNTED)
    for number in (2, 3):
        reserve(number)
    assert reserve(1) == "reserve"


def test_evidence_of_others_and_of_public_people_is_no_obstacle(ledger_file: Path) -> None:
    reserve(1)
    reserve(1, DIGITS)
    export(ACCOUNTED)
    export(EXPORTED / "digits.json", DIGITS)
    lose(ledger_file)
    assert reserve(1, replace(PEOPLE, name="others")) == "reserve"
    assert reserve(1, DIGITS) == "reserve"


def test_evidence_that_cannot_be_read_is_an_obstacle() -> None:
    reserve(1)
    ACCOUNTED.parent.mkdir(parents=True)
    for text in ("{", '{"version": 1, "population": "people", "entries": [{}]}'):
        ACCOUNTED.write_text(text)
        with pytest.raises((ValueError, KeyError), match=str(ACCOUNTED)):
            reserve(2)
