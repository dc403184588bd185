"""Calibrate chooses the smallest budget that is enough, or the largest within limits, or says why none."""

from dataclasses import replace
from typing import Any

import pytest

from stages.calibrate import Calibrate, CalibrateSettings

GIB = 2**30


def settings(**changes: Any) -> CalibrateSettings:
    plain = {"keep_fidelity": None, "step_limit": None, "memory_limit": None, "on": "public"}
    return replace(Calibrate.load().calibrate, **{**plain, **changes})


def budget(kept: int, fidelity: float, step: float, gib: float) -> dict[str, Any]:
    return {"kept": kept, "fidelity": fidelity, "step": step, "bytes": int(gib * GIB)}


FOUND = [budget(12, 0.90, 0.2, 1.0), budget(16, 0.99, 0.4, 2.0), budget(24, 1.0, 0.6, 3.0)]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"keep_fidelity": 0.97}, 16),
        ({"keep_fidelity": 0.97, "step_limit": 0.4, "memory_limit": 2.0}, 16),
        ({"keep_fidelity": 0.5, "step_limit": 0.9}, 12),
        ({"step_limit": 1.0}, 24),
        ({"step_limit": 0.59}, 16),
        ({"memory_limit": 2.5}, 16),
        ({"memory_limit": 3.0, "step_limit": 0.3}, 12),
    ],
    ids=str,
)
def test_what_is_chosen(asked: dict[str, Any], kept: int) -> None:
    assert settings(**asked).choose(FOUND)["kept"] == kept


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"keep_fidelity": 0.97, "step_limit": 0.3}, "40% of one with all, over calibrate.step_limit of 30%"),
        (
            {"keep_fidelity": 1.0, "memory_limit": 2.5},
            "24 visual tokens .* 3 GiB for 8 rows, over .* 2.5 GiB",
        ),
        ({"step_limit": 0.1}, "12 visual tokens .* of 10%: raise it, or add smaller calibrate.candidates"),
        ({"memory_limit": 0.5}, "1 GiB for 8 rows, over calibrate.memory_limit of 0.5 GiB: raise it, or add"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_one_sentence(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**asked, rows_at_once=8).choose(FOUND)


def test_no_budget_that_keeps_enough_is_refused_on_public_records_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="no candidate keeps 99% of the accuracy on public records"):
        settings(keep_fidelity=0.99).choose(FOUND[:1])
    assert settings(keep_fidelity=0.99, on="train").choose(FOUND[:1]) == FOUND[0]
    assert "WARNING" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "nothing to choose by"),
        ({"keep_fidelity": 0.0}, "keep_fidelity in"),
        ({"step_limit": 1.5}, "share in"),
        ({"memory_limit": 0.0}, "null or a positive number, got 0.0"),
        ({"memory_limit": 1.0, "rows_at_once": 0}, "rows_at_once must be at least 1"),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**asked)


@pytest.mark.parametrize("limit", ["step_limit", "memory_limit"])
def test_private_units_are_not_asked_how_long_their_rows_are(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace(Calibrate.load(), calibrate=settings(on="train", **{limit: 0.5}))
    with pytest.raises(ValueError, match=f"calibrate.{limit} asks how long rows are"):
        stage._on_private_units(None, [], None)  # type: ignore[arg-type]
