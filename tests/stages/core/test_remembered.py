"""What decides an answer is asked about once."""

from pathlib import Path

import pytest

from stages.core.remembered import remembered


def test_the_same_question_is_answered_once_and_another_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path))
    asked: list[int] = []

    def find() -> int:
        asked.append(len(asked))
        return 7 + len(asked)

    assert remembered("weights", {"rank": 4}, find) == 8
    assert remembered("weights", {"rank": 4}, find) == 8 and asked == [0]
    assert remembered("weights", {"rank": 5}, find) == 9
    assert remembered("elsewhere", {"rank": 4}, find) == 10, "another folder, another question"
