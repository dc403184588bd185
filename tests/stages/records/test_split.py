"""Splits hang on a unit's own id and a key; nothing else, and no count, is told."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ledger.population_key import PopulationKey
from stages.records.row import Message, Row, SourcedRow, Split
from stages.records.split import check_units, split_of, split_rows

KEY = PopulationKey(bytes(range(32)))
TURNS = (Message("user", "a"), Message("assistant", "b"))


def sourced(unit: str, split: Split | None = None) -> SourcedRow:
    """Return a row of ``unit``."""
    return SourcedRow(Row(f"row of {unit}", unit, "all", TURNS, ()), split)


def heldout_share(key: PopulationKey, heldout: float, units: int = 4000) -> float:
    """Return the share of ``units`` numbered units that are held out."""
    return sum(split_of(f"unit {number}", key, heldout) == "heldout" for number in range(units)) / units


def is_plausible(share: float, heldout: float, units: int = 4000) -> bool:
    """Tell whether a share is within five standard deviations of a binomial one."""
    return abs(share - heldout) < 5 * math.sqrt(heldout * (1 - heldout) / units)


@pytest.mark.parametrize("heldout", [0.05, 0.2, 0.5, 0.9])
def test_the_held_out_share_is_binomial(heldout: float) -> None:
    assert is_plausible(heldout_share(KEY, heldout), heldout)


def test_control_a_share_that_is_off_by_a_fifth_is_rejected() -> None:
    assert not is_plausible(heldout_share(KEY, 0.24), 0.2)


def test_another_key_splits_independently() -> None:
    other = PopulationKey(bytes(32))
    names = [f"unit {number}" for number in range(4000)]
    agree = sum(split_of(name, KEY, 0.5) == split_of(name, other, 0.5) for name in names) / len(names)
    assert is_plausible(agree, 0.5)


@settings(deadline=None, max_examples=30)
@given(st.sets(st.text(), min_size=2, max_size=8), st.data())
def test_removing_a_unit_moves_no_other(units: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(units)))
    rows = [
        sourced("train anchor", "train"),
        sourced("heldout anchor", "heldout"),
        *map(sourced, sorted(units)),
    ]
    whole = split_rows(rows, KEY, 0.3)
    less = split_rows([row for row in rows if row.row.unit != gone], KEY, 0.3)
    for before, after in zip(whole, less, strict=True):
        assert [row for row in before if row.unit != gone] == after


@settings(deadline=None)
@given(st.text(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_share_keeps_every_held_out_unit(unit: str, one: float, other: float) -> None:
    if split_of(unit, KEY, min(one, other)) == "heldout":
        assert split_of(unit, KEY, max(one, other)) == "heldout"


def test_a_declared_split_stands_against_the_hash() -> None:
    rows = [sourced(f"unit {number}", "train" if number < 5 else "heldout") for number in range(10)]
    train, heldout = split_rows(rows, KEY, 0.5)
    assert [row.unit for row in train] == [f"unit {number}" for number in range(5)]
    assert len(heldout) == 5


@pytest.mark.parametrize(("declared", "empty"), [("train", "heldout"), ("heldout", "train")])
def test_an_empty_split_is_refused(declared: Split, empty: str) -> None:
    with pytest.raises(ValueError, match=f"no private unit falls into {empty}"):
        split_rows([sourced("u", declared)], KEY, 0.5)


def test_more_units_than_declared_are_refused_without_telling_how_many() -> None:
    rows = [sourced(f"unit {number}") for number in range(123)] * 2
    check_units(rows, [], [], 123)
    with pytest.raises(ValueError, match="max_units = 122") as refusal:
        check_units(rows, [], [], 122)
    assert "123" not in str(refusal.value)


def test_a_unit_in_private_and_public_records_is_refused_without_naming_it() -> None:
    check_units([sourced("alice")], [sourced("bob")], [], 10)
    with pytest.raises(ValueError, match="must not share a unit with the private ones") as refusal:
        check_units([sourced("alice")], [sourced("bob"), sourced("alice")], [], 10)
    assert "alice" not in str(refusal.value)
