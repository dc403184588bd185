"""What the ledger still allows is what it would really admit, and asking changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import ADD_OR_REMOVE, DIGITS, PEOPLE, RULE, reservation

from pipeline.budget.books import Books
from stages.ledger.ledger import Ledger
from stages.privacy.chain import chain_to_json
from stages.privacy.plan import NOTHING_ELSE, Beside, Others, Plan
from stages.privacy.sampling import Sampling
from tests.pipeline.budget.test_recommendation import plan

PARAMS = "ledger: {url: null, limit: {epsilon: 12.0, delta: 1.0e-5}}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tenth(others: Others = NOTHING_ELSE) -> Plan:
    """Return a plan of which ten fit the limit, and eleven do not."""
    sampling = Sampling(steps=40, rate=0.125, expected_batch=125.0)
    return replace(plan(125, 40, 1.38), sampling=sampling, others=others)


def test_without_a_ledger_the_whole_limit_is_left_and_none_is_made(ledger_file: Path) -> None:
    books = Books.of(PEOPLE, ADD_OR_REMOVE)
    assert books.allow(tenth()).passes == 10
    assert books.words() == "all of epsilon 12 at delta 1e-05 is left: nothing was reserved yet"
    assert not ledger_file.exists()


def test_it_counts_what_reserving_again_and_again_admits() -> None:
    ledger = Ledger.load()
    ledger.register(PEOPLE, ["a"], RULE)
    event = tenth().event(40)
    for number in range(3):
        ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(number, event))
    before = ledger.entries(PEOPLE.name)
    said = Books.of(PEOPLE, ADD_OR_REMOVE).allow(tenth()).passes
    assert ledger.entries(PEOPLE.name) == before, "asking wrote something"
    admitted = 0
    with pytest.raises(ValueError, match="over the limit"):
        while True:
            ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(3 + admitted, event))
            admitted += 1
    assert said == admitted == 7
    spent = Books.of(PEOPLE, ADD_OR_REMOVE)
    assert spent.allow(tenth()).passes == 0
    assert str(spent.allow(tenth()).refused).startswith(
        "over the limit of population 'people': stage finetune"
    )


@pytest.mark.parametrize("rules", [(RULE,), (RULE, "another rule")])
def test_what_a_pass_spends_beside_training_counts_as_its_splits_compose(rules: tuple[str, ...]) -> None:
    figures = Beside(stage="evaluate", split="heldout", rate=1.0, noise_multiplier=1.3)
    whole = tenth(Others(charges=(figures,), composition="parallel"))
    ledger = Ledger.load()
    for rule in rules:
        ledger.register(PEOPLE, ["a"], rule)
    said = Books.of(PEOPLE, ADD_OR_REMOVE).allow(whole).passes
    admitted = 0
    with pytest.raises(ValueError, match="over the limit"):
        while True:
            training = reservation(2 * admitted, whole.event(40))
            ledger.reserve(PEOPLE, ADD_OR_REMOVE, training)
            after = reservation(
                2 * admitted + 1, figures.event(), stage="evaluate", split="heldout", sampler="none"
            )
            ledger.reserve(PEOPLE, ADD_OR_REMOVE, after)
            admitted += 1
    assert said == admitted > 0


def test_a_public_population_is_never_refused() -> None:
    assert Books.of(DIGITS, ADD_OR_REMOVE).allow(tenth()).passes is None


def test_other_constants_than_the_ledgers_are_refused_in_its_words() -> None:
    Ledger.load().reserve(PEOPLE, ADD_OR_REMOVE, reservation(0))
    more = Books.of(replace(PEOPLE, max_units=2000), ADD_OR_REMOVE).allow(tenth())
    assert more.passes == 0 and "was opened with population.max_units 1000" in str(more.refused)


def test_a_ledger_that_was_lost_allows_nothing(ledger_file: Path, here: Path) -> None:
    ledger = Ledger.load()
    ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(0))
    (here / "data/account").mkdir(parents=True)
    shown = json.dumps(chain_to_json(PEOPLE.name, ledger.entries(PEOPLE.name)))
    (here / "data/account/ledger.json").write_text(shown)
    assert Books.of(PEOPLE, ADD_OR_REMOVE).lost is None
    for file in ledger_file.parent.glob("ledger.sqlite3*"):
        file.unlink()
    books = Books.of(PEOPLE, ADD_OR_REMOVE)
    assert books.allow(tenth()).passes == 0
    assert "restore the ledger in which its releases were recorded" in books.words()
