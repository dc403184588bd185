"""What canaries showed is recomputed from its counts and held against the rest of the evidence."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from forging import HONEST
from honest_evidence import PLANTED, canaries_of, files_of
from stored_evidence import Files, edited, lied, read, replaced, scalars, stored, written

from pipeline.audit import audit
from pipeline.verdict import verdict_text
from stages.core.canonical import canonical_json
from stages.privacy.audit import audit_of
from stages.privacy.canary_evidence import canaries_json, in_words, read_canaries
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.evidence import CANARIES, LOCK, STATEMENT
from stages.privacy.one_run_bound import Guesses, epsilon_lower_bound, guess


@pytest.fixture(scope="module")
def honest() -> Files:
    return files_of(HONEST)


def said(files: Files, folder: Path) -> str:
    """Return what the command prints."""
    return verdict_text(audit(written(folder, files)))


def errors(files: Files) -> Iterator[str]:
    return (one.problem for one in audit_of(read(files)).findings if one.file == CANARIES)


def test_every_changed_scalar_is_noticed_though_dvc_lock_is_made_to_fit(honest: Files) -> None:
    assert not list(errors(honest)), "control"
    value = json.loads(honest[CANARIES])
    paths = list(scalars(value))
    assert len(paths) >= 10
    missed = [
        path
        for path in paths
        if not list(errors(replaced(honest, CANARIES, canonical_json(lied(value, path)))))
    ]
    assert not missed


def test_a_bound_above_the_claim_is_an_error_and_one_below_it_is_not(honest: Files) -> None:
    claimed = json.loads(honest[STATEMENT])["epsilon"]
    each = PLANTED.guesses_of_each()
    told = {}
    for right in range(2 * each + 1):
        value = canaries_of(HONEST, right)
        found = list(errors(replaced(honest, CANARIES, canonical_json(value))))
        told[right] = any("contradicts the claim" in problem for problem in found)
        assert told[right] is (value["lower_bound"] > claimed) is bool(found)
    assert set(told.values()) == {True, False}


def test_a_result_that_dvc_recorded_and_that_is_gone_is_missed(honest: Files) -> None:
    gone = {file: content for file, content in honest.items() if file != CANARIES}
    told = ["is missing, and dvc.lock records that canaries were configured"]
    assert [*errors(gone)] == told
    assert not read(gone).missing(), "the accounting is whole without it"
    lock = json.loads(gone[LOCK])
    del lock["stages"]["canaries"]
    assert [*errors({**gone, LOCK: canonical_json(lock)})] == told, "those who trained with them say so too"


def test_evidence_from_before_there_were_canaries_is_whole() -> None:
    assert not list(errors(stored("2.0")))


@pytest.mark.parametrize("value", [None, [], {}, 1, {"version": 2}, {"version": 1}])
def test_a_result_of_another_form_is_a_finding_and_no_crash(value: object, honest: Files) -> None:
    assert list(errors(replaced(honest, CANARIES, canonical_json(value))))


@pytest.mark.parametrize(
    "changes",
    [
        {"right": "many"},
        {"right": -1},
        {"canaries": 10**9},
        {"guessed_in": -5, "guessed_out": 45},
        {"delta": -0.1},
        {"adapter": {}},
        {"adapter": {"weights": "short"}},
        {"adapter": 1},
        {"more": 1},
        {"lower_bound": 1e308},
        {"lower_bound": -1e308},
        {"ceiling": 1e308},
        {"ceiling": -1e308},
        {"confidence": 1e308},
    ],
)
def test_a_value_that_no_stage_writes_is_a_finding_and_no_crash(
    changes: dict[str, object], honest: Files, tmp_path: Path
) -> None:
    broken = edited(honest, CANARIES, lambda value: value.update(changes))
    assert list(errors(broken))
    assert "REFUSED" in said(broken, tmp_path)


@pytest.mark.parametrize("count", [None, "x", -1, 0, 10, 40.5, True, 10**400, 10**9])
def test_other_settings_in_dvc_lock_are_a_finding(count: object, honest: Files, tmp_path: Path) -> None:
    lock = json.loads(honest[LOCK])
    for stage in ("ingest", "finetune", "canaries"):
        lock["stages"][stage]["params"]["params.yaml"]["canaries"]["count"] = count
    changed = {**honest, LOCK: canonical_json(lock)}
    (problem,) = errors(changed)
    assert "dvc.lock" in problem and len(problem) < 600
    assert "verdict: fail" in said(changed, tmp_path)


@pytest.mark.parametrize("stage", ["ingest", "finetune", "canaries"])
def test_guesses_that_were_settled_after_training_are_a_finding(stage: str, honest: Files) -> None:
    lock = json.loads(honest[LOCK])
    lock["stages"][stage]["params"]["params.yaml"]["canaries"]["seed"] = 1
    (problem,) = errors({**honest, LOCK: canonical_json(lock)})
    assert "records other canaries for one of the stages" in problem


def test_canaries_of_another_ingest_are_a_finding(honest: Files) -> None:
    lock = json.loads(honest[LOCK])
    lock["stages"]["ingest"]["outs"][0]["md5"] = "0" * 32 + ".dir"
    found = audit_of(read({**honest, LOCK: canonical_json(lock)})).findings
    assert ["stage canaries read another 'data/records/canaries' than the one recorded"] == [
        one.problem for one in found
    ]


def test_no_canaries_show_nothing_and_say_so(honest: Files) -> None:
    none = canaries_json(Guesses(0, 0, 0), 0, 1e-5, json.loads(honest[CANARIES])["adapter"])
    assert (none["lower_bound"], none["ceiling"], none["right"]) == (0, 0, 0)
    assert in_words(read_canaries(none, CANARIES), 3.0) == "no canaries were planted"
    lock = json.loads(replaced(honest, CANARIES, canonical_json(none))[LOCK])
    for stage in ("ingest", "finetune", "canaries"):
        lock["stages"][stage]["params"]["params.yaml"]["canaries"]["count"] = 0
    assert not list(errors({**honest, CANARIES: canonical_json(none), LOCK: canonical_json(lock)}))


def test_a_bound_in_words_is_rounded_down_and_no_claim_is_said_to_be_none() -> None:
    found = read_canaries(
        canaries_json(Guesses(200, 50, 44), 25, 1e-5, {"weights": "0" * 64}), "canaries.json"
    )
    shown = float(in_words(found, None).partition("at least ")[2].partition(",")[0])
    assert found.lower_bound - 0.01 < shown <= found.lower_bound
    assert "and none is claimed" in in_words(found, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": -1}, "cannot be negative"),
        ({"rows_per_unit": 0}, "at least one row"),
        ({"words": 0}, "one word"),
        ({"seed": -1}, "cannot be negative"),
        ({"guessed": 0.0}, "must lie above 0"),
        ({"guessed": 1.5}, "at most 1"),
        ({"count": 4}, "leaves none to guess about"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float], words: str) -> None:
    values = {"count": 100, "rows_per_unit": 2, "words": 4, "guessed": 0.4, "seed": 0}
    CanarySettings(**values)
    with pytest.raises(ValueError, match=words):
        CanarySettings(**{**values, **changes})


def test_guesses_from_scores_without_a_signal_bound_nothing_and_with_one_do() -> None:
    """Over many runs a sound system is accused of more than epsilon 0 in at most one of twenty."""
    dice, accused = np.random.default_rng(0), 0
    for _ in range(200):
        is_in_M, scores_M = dice.random(200) < 0.5, dice.normal(size=200)
        accused += epsilon_lower_bound(guess(scores_M, is_in_M, 25, 25), 1e-5) > 0
    assert accused <= 20, "binomial: more than 20 of 200 at a chance of 1 in 20 has p = 0.002"
    assert epsilon_lower_bound(guess(scores_M + 4 * is_in_M, is_in_M, 25, 25), 1e-5) > 1.5
