"""Who approved a release stays with its reservation, and cannot be changed there."""

import json
from dataclasses import replace
from typing import Any

import pytest
from ledgers import ADD_OR_REMOVE, PEOPLE, reservation

from stages.ledger.ledger import Ledger
from stages.privacy.approval import Approval, NotAsked
from stages.privacy.chain import chain_from_json, chain_to_json, new_entry
from stages.privacy.history import history_of

INPUTS, RUN = "ab" * 16, "cd" * 16
SAID = Approval(by="Ada", reason="agreed in writing", fingerprint=INPUTS, asked_in=RUN)


def test_the_ledger_keeps_who_approved_and_the_first_word_stands(place: str) -> None:
    ledger = Ledger.load()
    entry = ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=SAID))
    assert entry.body.approval == SAID
    later = Approval(by="Bob", reason="goes on after a crash", fingerprint=INPUTS, asked_in="ef" * 16)
    assert ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=later)) == entry
    assert ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1)) == entry
    assert Ledger.load().entries(PEOPLE.name)[-1] == entry


def test_an_approval_is_worth_one_release(place: str) -> None:
    ledger = Ledger.load()
    ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=SAID))
    before = ledger.entries(PEOPLE.name)
    with pytest.raises(ValueError, match="Ada approved one release of finetune on these inputs"):
        ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(2, approval=SAID))
    assert ledger.entries(PEOPLE.name) == before
    for number, change in ((2, {"asked_in": "ef" * 16}), (3, {"fingerprint": "ef" * 16})):
        other = replace(SAID, **change)
        assert (
            ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(number, approval=other)).body.approval == other
        )


def test_a_chain_in_which_one_approval_serves_two_releases_fails_the_audit(place: str) -> None:
    ledger = Ledger.load()
    first = ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=SAID))
    chain = ledger.entries(PEOPLE.name)
    forged = new_entry(PEOPLE.name, chain, first.day, replace(first.body, release="f" * 32))
    with pytest.raises(ValueError, match="on an approval that another was begun on"):
        history_of(PEOPLE.name, [*chain, forged])


def test_where_nobody_was_asked_nothing_new_is_reserved_and_what_is_goes_on(place: str) -> None:
    ledger = Ledger.load()
    entry = ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=SAID))
    assert ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=NotAsked())) == entry
    with pytest.raises(ValueError, match="nobody was asked whether finetune may spend"):
        ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(2, approval=NotAsked()))
    assert ledger.entries(PEOPLE.name)[-1] == entry


def test_an_approval_of_before_runs_were_kept_is_read_as_it_was_stored(place: str) -> None:
    ledger = Ledger.load()
    entry = ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=replace(SAID, asked_in=None)))
    assert b"asked_in" not in entry.content()
    stored = json.loads(json.dumps(chain_to_json(PEOPLE.name, ledger.entries(PEOPLE.name))))
    assert chain_from_json(stored, "the chain")[-1] == entry
    stored["entries"][-1]["body"]["approval"]["asked_in"] = None
    with pytest.raises(KeyError, match="has unknown keys"):
        chain_from_json(stored, "the chain")


def test_a_reservation_without_approval_is_stored_as_it_always_was(place: str) -> None:
    ledger = Ledger.load()
    entry = ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1))
    assert b"approval" not in entry.content()
    stored = chain_to_json(PEOPLE.name, ledger.entries(PEOPLE.name))
    assert chain_from_json(stored, "the chain")[-1] == entry


@pytest.mark.parametrize("change", [{"by": "Bob"}, "dropped"])
def test_who_approved_cannot_be_changed_or_dropped(place: str, change: Any) -> None:
    ledger = Ledger.load()
    ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=SAID))
    stored = json.loads(json.dumps(chain_to_json(PEOPLE.name, ledger.entries(PEOPLE.name))))
    body = stored["entries"][-1]["body"]
    if change == "dropped":
        del body["approval"]
    else:
        body["approval"] |= change
    with pytest.raises(ValueError, match="is not the one that its digest names"):
        chain_from_json(stored, "the chain")


def test_an_empty_approval_cannot_be_added(place: str) -> None:
    ledger = Ledger.load()
    ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1))
    stored = json.loads(json.dumps(chain_to_json(PEOPLE.name, ledger.entries(PEOPLE.name))))
    stored["entries"][-1]["body"]["approval"] = None
    with pytest.raises(KeyError, match="has unknown keys"):
        chain_from_json(stored, "the chain")
