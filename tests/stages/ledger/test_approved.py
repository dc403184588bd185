"""Who approved a release stays with its reservation, and cannot be changed there."""

import json
from typing import Any

import pytest
from ledgers import ADD_OR_REMOVE, PEOPLE, reservation

from stages.ledger.ledger import Ledger
from stages.privacy.approval import Approval
from stages.privacy.chain import chain_from_json, chain_to_json

INPUTS = "ab" * 16
SAID = Approval(by="Ada", reason="agreed in writing", fingerprint=INPUTS)


def test_the_ledger_keeps_who_approved_and_the_first_word_stands(place: str) -> None:
    ledger = Ledger.load()
    entry = ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=SAID))
    assert entry.body.approval == SAID
    later = Approval(by="Bob", reason="goes on after a crash", fingerprint=INPUTS)
    assert ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1, approval=later)) == entry
    assert ledger.reserve(PEOPLE, ADD_OR_REMOVE, reservation(1)) == entry
    assert Ledger.load().entries(PEOPLE.name)[-1] == entry


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
