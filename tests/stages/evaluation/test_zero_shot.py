"""Counts are kept for what decides them, and for nothing else."""

from pathlib import Path

import pytest

from stages.evaluation.accuracy import Accuracy
from stages.evaluation.zero_shot import counted_once


def test_counts_are_made_once_for_what_decides_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path))
    asked = []

    def count() -> dict[str, Accuracy]:
        asked.append(len(asked))
        return {"all": Accuracy(3, 4), "digit": Accuracy(0, 0)}

    first = counted_once({"files": "a"}, count)
    assert counted_once({"files": "a"}, count) == first == {"all": Accuracy(3, 4), "digit": Accuracy(0, 0)}
    assert asked == [0]
    counted_once({"files": "b"}, count)
    assert asked == [0, 1]
