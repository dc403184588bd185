"""An entry comes back as it was written, and one that somebody touched does not."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import DAY, PEOPLE, RULE, chain_of, opened, release, reservation, reserve

from stages.core.canonical import canonical_json
from stages.privacy.chain import (
    START,
    AbandonBody,
    Entry,
    ReserveBody,
    SettleBody,
    SplitBody,
    chain_from_json,
    chain_to_json,
    entry_from_content,
    entry_from_json,
)


def chain() -> list[Entry]:
    entries = reserve(opened(), reservation(1))
    event = entries[-1].body.event
    settle = {
        "released": {"models/adapter/a": "0" * 64},
        "code": "",
        "commit": "",
        "versions": {"torch": "2"},
    }
    return chain_of(
        PEOPLE.name,
        [
            *(entry.body for entry in entries),
            SettleBody(release=release(1), event=event, cost=0.25, **settle),
            AbandonBody(release=release(1), event=event, cost=0.25, reason="gone"),
        ],
    )


def exported() -> dict[str, Any]:
    """Return a chain of every kind of entry as it is read from a file."""
    return json.loads(canonical_json(chain_to_json(PEOPLE.name, chain())))


def test_a_chain_comes_back_as_it_was_written() -> None:
    assert chain_from_json(exported(), "ledger.json") == chain()
    for entry in chain():
        assert entry_from_content(
            json.loads(entry.content()) | {"digest": entry.digest}, entry.content(), "e"
        )
    assert [entry.sequence for entry in chain()] == [1, 2, 3, 4, 5]
    assert [entry.previous for entry in chain()] == [START, *(entry.digest for entry in chain()[:-1])]


def leaves(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the path of every value in a JSON document."""
    if isinstance(value, dict):
        return [found for key in value for found in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [found for number, item in enumerate(value) for found in leaves(item, (*path, number))]
    return [path]


def changed(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "0" * 64 if value is None else value[:-1] + ("1" if value.endswith("0") else "0")


@pytest.mark.parametrize("number", range(5))
def test_no_value_of_an_entry_can_be_changed(number: int) -> None:
    for path in leaves(exported()["entries"][number]):
        value = exported()
        place = value["entries"][number]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = changed(place[path[-1]])
        with pytest.raises(
            (ValueError, KeyError, TypeError), match=rf"^.?ledger\.json, entry {number + 1}\b|^"
        ):
            chain_from_json(value, "ledger.json")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("inside", [True, False])
def test_no_key_can_be_added_or_dropped(number: int, inside: bool) -> None:
    entry = exported()["entries"][number]
    for key in [None, *(entry["body"] if inside else entry)]:
        value = copy.deepcopy(entry)
        place = value["body"] if inside else value
        if key is None:
            place["more"] = 1
        else:
            del place[key]
        with pytest.raises(KeyError, match="^.?entry of a file.* (has unknown|lacks) keys"):
            entry_from_json(value, "entry of a file")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "refund"}, "must be one of"),
        ({"version": 2}, "has version 2; this dualpriv reads version 1"),
        ({"sequence": True}, "must be of type int"),
        ({"sequence": "1"}, "must be of type int"),
        ({"day": "2031-02-03T04:05:06"}, "is YYYY-MM-DD"),
        ({"kind": "open"}, "unknown keys"),
        ({"digest": START}, "is not the one that its digest names"),
    ],
)
def test_what_is_no_entry_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError), match=said):
        entry_from_json(exported()["entries"][0] | change, "entry 1")


@pytest.mark.parametrize("change", [{"version": 2}, {"population": "others"}, {"entries": {}}, {"more": 1}])
def test_what_is_no_chain_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError), match="ledger.json"):
        chain_from_json(exported() | change, "ledger.json")


def test_an_impossible_body_cannot_be_built() -> None:
    event = {"class": "NoOpDpEvent"}
    with pytest.raises(ValueError, match="32 hex digits"):
        ReserveBody(release="A" * 32, stage="s", split="train", sampler="none", event=event, cost=None)
    with pytest.raises(ValueError, match="name of a module"):
        ReserveBody(release=release(1), stage="../s", split="train", sampler="none", event=event, cost=None)
    with pytest.raises(ValueError, match="must say so in words"):
        SplitBody(rule=" ")
    settle = {"release": release(1), "event": event, "cost": None, "code": "", "commit": ""}
    with pytest.raises(ValueError, match="named by SHA-256"):
        SettleBody(**settle, released={"file": "abc"}, versions={})
    with pytest.raises(ValueError, match="versions of libraries are texts"):
        SettleBody(**settle, released={}, versions={"torch": 2})
    with pytest.raises(ValueError, match="no body such as"):
        Entry(
            population="p",
            sequence=1,
            kind="open",
            day=DAY,
            body=SplitBody(rule=RULE),
            previous=START,
            digest="",
        )


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_any_text_is_stored_in_one_spelling(population: str, rule: str) -> None:
    (entry,) = chain_of(population, [SplitBody(rule=rule)])
    assert chain_from_json(json.loads(canonical_json(chain_to_json(population, [entry]))), "x") == [entry]
