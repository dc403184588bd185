"""Run ``dualpriv`` in this process: as the command line does, and without starting Python again."""

from collections.abc import Callable

import pytest

from pipeline.cli import main

Command = Callable[..., tuple[int, str, str]]
"""Takes arguments; returns the exit code, what was printed, and what was said on standard error."""


def commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs a command in the current directory."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dualpriv", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run
