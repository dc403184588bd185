"""The ledger keeps what it was told, once, refuses the rest, and notices who touched it."""

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from ledgers import ADD_OR_REMOVE, DIGITS, PEOPLE, RULE, TENTH, release, reservation, settlement, sgd

from stages.core.canonical import canonical_json
from stages.ledger.ledger import Ledger
from stages.privacy.chain import Entry
from stages.privacy.history import history_of
from stages.privacy.population import Population
from stages.privacy.split_rule import source_field_rule
from stages.privacy.totals import totals_of

OTHERS = Population(name="others", public=True, max_units=1000, unit="person")


def reserve(ledger: Ledger, number: int, population: Population = PEOPLE, **changes) -> Entry:
    return ledger.reserve(population, ADD_OR_REMOVE, reservation(number, **changes))


def kinds(ledger: Ledger, population: Population = PEOPLE) -> list[str]:
    return [entry.kind for entry in ledger.entries(population.name)]


def spent(ledger: Ledger) -> tuple[float, float]:
    found = totals_of(history_of(PEOPLE.name, ledger.entries(PEOPLE.name)))
    return found.spent, found.reserved


def test_a_release_is_reserved_and_settled_and_found_again_by_another_process(place: str) -> None:
    ledger = Ledger.load()
    assert ledger.populations() == [] and ledger.entries(PEOPLE.name) == []
    entry = reserve(ledger, 1)
    assert (entry.kind, entry.sequence) == ("reserve", 2)
    again = Ledger.load()
    ended = again.settle(PEOPLE.name, settlement(1, sgd(steps=9)))
    assert (ended.kind, ended.sequence) == ("settle", 3)
    assert kinds(Ledger.load()) == ["open", "reserve", "settle"]
    assert ledger.populations() == ["people"]
    assert spent(ledger) == (ended.body.cost, 0.0)


def test_asking_again_changes_nothing_and_returns_the_same_entry(place: str) -> None:
    ledger = Ledger.load()
    assert reserve(ledger, 1) == reserve(ledger, 1)
    assert ledger.settle(PEOPLE.name, settlement(1)) == ledger.settle(PEOPLE.name, settlement(1))
    reserve(ledger, 2)
    gone = [ledger.abandon(PEOPLE.name, release(2), sgd(steps=3), "gone") for _ in range(2)]
    assert gone[0] == gone[1]
    ledger.register(PEOPLE, ["a", "b"], RULE)
    ledger.register(PEOPLE, ["b", "c"], RULE)
    assert kinds(ledger) == ["open", "reserve", "settle", "reserve", "abandon", "split"]
    assert reserve(ledger, 1).sequence == 2


def test_what_is_refused_leaves_no_trace(place: str) -> None:
    ledger = Ledger.load()
    with pytest.raises(ValueError, match="over the limit"):
        reserve(ledger, 1, event=sgd(0.1))
    assert ledger.populations() == []
    for number in range(10):
        reserve(ledger, number, event=TENTH)
    before = ledger.entries(PEOPLE.name)
    for refused in (
        lambda: reserve(ledger, 10, event=TENTH),
        lambda: reserve(ledger, 1, event=sgd()),
        lambda: ledger.settle(PEOPLE.name, settlement(1, sgd(0.5))),
        lambda: ledger.settle(PEOPLE.name, settlement(11)),
        lambda: ledger.abandon(OTHERS.name, release(1), TENTH, "gone"),
    ):
        with pytest.raises(ValueError):
            refused()
    assert ledger.entries(PEOPLE.name) == before and ledger.populations() == ["people"]


def test_what_an_abandoned_release_did_not_begin_is_given_back(place: str) -> None:
    ledger = Ledger.load()
    for number in range(10):
        reserve(ledger, number, event=TENTH)
    ledger.abandon(PEOPLE.name, release(3), sgd(1.38, steps=1), "killed")
    assert reserve(ledger, 10, event=sgd(1.38, steps=39)).kind == "reserve"
    with pytest.raises(ValueError, match="over the limit"):
        reserve(ledger, 11, event=TENTH)


def test_populations_have_chains_and_budgets_of_their_own(place: str) -> None:
    ledger = Ledger.load()
    for number in range(10):
        reserve(ledger, number, event=TENTH)
    entry = reserve(ledger, 1, DIGITS, event=sgd(0.1))
    assert (entry.population, entry.sequence, entry.body.cost) == ("digits", 2, None)
    assert ledger.populations() == ["digits", "people"]


def test_a_key_is_made_once_and_is_the_populations_own(place: str) -> None:
    ledger = Ledger.load()
    key = ledger.population_key("people")
    assert key == Ledger.load().population_key("people")
    assert key != ledger.population_key("digits")
    assert ledger.populations() == [], "a key is no entry"


def test_a_unit_of_another_population_is_refused_naming_neither(place: str) -> None:
    ledger = Ledger.load()
    ledger.register(PEOPLE, [f"patient {number}" for number in range(1200)], RULE)
    with pytest.raises(ValueError, match="belong to another declared population") as refused:
        ledger.register(OTHERS, ["visitor 1", "patient 1100", "visitor 2"], RULE)
    assert not any(word in str(refused.value) for word in ("people", "others", "patient", "visitor", "1"))
    ledger.register(OTHERS, ["visitor 1", "visitor 2"], RULE)
    assert kinds(ledger, OTHERS) == ["split"]
    with pytest.raises(ValueError, match="belong to another declared population"):
        ledger.register(PEOPLE, ["visitor 2"], RULE)
    ledger.register(PEOPLE, ["patient 3", "patient 1200"], RULE)


def test_an_overlap_leaves_none_of_the_other_units_behind(place: str) -> None:
    ledger = Ledger.load()
    ledger.register(PEOPLE, ["shared"], RULE)
    with pytest.raises(ValueError, match="belong to another"):
        ledger.register(OTHERS, ["shared", "free"], RULE)
    ledger.register(DIGITS, ["free"], RULE)


def test_every_split_rule_is_recorded_once(place: str) -> None:
    ledger = Ledger.load()
    for rule in (RULE, RULE, source_field_rule("fold"), RULE):
        ledger.register(PEOPLE, ["a"], rule)
    assert [entry.body.rule for entry in ledger.entries(PEOPLE.name)] == [RULE, source_field_rule("fold")]


def test_ids_of_units_are_nowhere_in_the_file(ledger_file: Path) -> None:
    Ledger.load().register(PEOPLE, ["patient Q7316", "patient Q7317"], RULE)
    stored = b"".join(path.read_bytes() for path in ledger_file.parent.iterdir())
    assert b"Q7316" not in stored and b"patient" not in stored
    assert b"people" in stored, "control: what is stored in the open is found"


THIRD = "WHERE sequence = 3"
TAMPERINGS = {
    "content": f"UPDATE entries SET content = replace(content, '\"count\": 40', '\"count\": 39') {THIRD}",
    "digest": f"UPDATE entries SET digest = '00000000' || substr(digest, 9) {THIRD}",
    "order": "; ".join(
        f"UPDATE entries SET sequence = {new} WHERE sequence = {old}" for old, new in ((3, 0), (4, 3), (0, 4))
    ),
    "hole": f"DELETE FROM entries {THIRD}",
    "nothing": f"UPDATE entries SET content = 'nothing' {THIRD}",
    "moved": f"UPDATE entries SET population = 'digits' {THIRD}",
}


def engine_of(place: str) -> sqlalchemy.Engine:
    url = place.replace("postgresql:", "postgresql+psycopg:") if "://" in place else f"sqlite:///{place}"
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)


def execute(place: str, statements: str) -> None:
    """Execute SQL on the ledger as whoever owns the database may, who need not mind triggers."""
    with engine_of(place).begin() as connection:
        if "://" in place:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        else:
            triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            for (name,) in connection.exec_driver_sql(triggers).all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        for statement in statements.split("; "):
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("which", TAMPERINGS)
def test_a_chain_that_somebody_edited_is_noticed_and_serves_nobody(which: str, place: str) -> None:
    ledger = Ledger.load()
    for number in range(4):
        reserve(ledger, number)
    execute(place, TAMPERINGS[which])
    for asked in (
        lambda: ledger.entries(PEOPLE.name),
        lambda: reserve(ledger, 9),
        lambda: reserve(ledger, 3),
        lambda: ledger.settle(PEOPLE.name, settlement(3)),
        lambda: ledger.abandon(PEOPLE.name, release(3), sgd(), "gone"),
        lambda: ledger.register(PEOPLE, ["a"], RULE),
    ):
        with pytest.raises(ValueError, match="entry [35] of the ledger of population 'people'"):
            asked()


def test_a_chain_whose_digests_were_recomputed_still_breaks_its_links(place: str) -> None:
    ledger = Ledger.load()
    for number in range(4):
        reserve(ledger, number)
    forged = json.loads(ledger.entries(PEOPLE.name)[2].content()) | {"day": "2001-01-01"}
    content = canonical_json(forged)
    digest = hashlib.sha256(content).hexdigest()
    execute(place, f"UPDATE entries SET content = '{content.decode()}', digest = '{digest}' {THIRD}")
    with pytest.raises(ValueError, match="entry 4 of .* does not follow the entry before it"):
        ledger.entries(PEOPLE.name)


CHANGES = [
    "UPDATE {table} SET {column} = {column}",
    "DELETE FROM {table}",
]


@pytest.mark.parametrize("statement", CHANGES)
@pytest.mark.parametrize(
    ("table", "column"), [("entries", "content"), ("units", "population"), ("secrets", "name")]
)
def test_no_row_is_ever_updated_or_deleted(statement: str, table: str, column: str, place: str) -> None:
    refused_by_the_database(place, statement.format(table=table, column=column))


@pytest.mark.parametrize("table", ["entries", "units", "secrets"])
def test_no_row_is_ever_replaced_and_no_table_emptied(table: str, place: str) -> None:
    if "://" in place:
        refused_by_the_database(place, f"TRUNCATE {table}")
    else:
        refused_by_the_database(place, f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")
        refused_by_the_database(place, f"REPLACE INTO {table} SELECT * FROM {table}")


def refused_by_the_database(place: str, statement: str) -> None:
    ledger = Ledger.load()
    ledger.register(PEOPLE, ["a"], RULE)
    before = ledger.entries(PEOPLE.name)
    with pytest.raises(sqlalchemy.exc.DBAPIError, match="are never changed"):
        with engine_of(place).begin() as connection:
            connection.exec_driver_sql(statement)
    assert ledger.entries(PEOPLE.name) == before


def test_an_entry_of_the_same_digest_replaces_no_other(ledger_file: Path) -> None:
    ledger = Ledger.load()
    ledger.register(PEOPLE, ["a"], RULE)
    with sqlite3.connect(ledger_file) as raw, pytest.raises(sqlite3.IntegrityError, match="never changed"):
        raw.execute("INSERT OR REPLACE INTO entries SELECT population, 7, digest, content FROM entries")
    raw.close()
    assert kinds(ledger) == ["split"]
