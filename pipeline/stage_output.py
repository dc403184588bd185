"""Understand what ``dvc repro`` prints: what happened to the stage, how far it is, and why it failed."""

import json
import re
from collections.abc import Callable
from typing import Literal

EVENT = "@@ "
HINTS = re.compile(
    r"^(To track the changes with git, run:|\tgit add |To enable auto staging, run:"
    r"|\tdvc config core\.autostage |Use `dvc push` to send your updates"
    r"|Updating lock file |Generating lock file |Data and pipelines are up to date)"
)
EXITED = re.compile(r"exited with (-?\d+)$")


class StageOutput:
    """The lines of one run, taken one at a time."""

    def __init__(self, stage: str, say: Callable[[str], None], progress: Callable[[int, int], None]) -> None:
        """``say`` gets the lines people read, ``progress`` the step number and the number of steps."""
        self._stage = stage
        self._say = say
        self._progress = progress
        self._last_of_stage = ""
        self._error_of_dvc = ""
        self.outcome: Literal["ran", "cached", "unchanged"] = "unchanged"
        self.exit_code: int | None = None

    def take(self, line: str) -> None:
        """Take the next line, without its line break.

        Edge cases: blank lines and DVC's hints about Git are dropped; of an event only the step goes on.
        """
        if not line or HINTS.match(line):
            return
        if line.startswith(EVENT) and self._take_event(line.removeprefix(EVENT)):
            return
        if line.startswith("Running stage "):
            self.outcome = "ran"
        elif "is cached - skipping run" in line:
            self.outcome = "cached"
        elif line.startswith("ERROR: "):
            self._error_of_dvc = line.removeprefix("ERROR: ")
            found = EXITED.search(line)
            self.exit_code = int(found[1]) if found else None
        elif self.outcome == "ran" and not line.startswith("> "):
            self._last_of_stage = line
        self._say(line)

    @property
    def reason(self) -> str:
        """One sentence on why the stage failed: its own last one, else DVC's."""
        own = self._last_of_stage.removeprefix(f"stages.{self._stage}: ")
        if self.exit_code is not None and self.exit_code < 0:
            return f"killed by signal {-self.exit_code}" + (f" after: {own}" if own else "")
        return own or self._error_of_dvc or "dvc ended without a word"

    def _take_event(self, text: str) -> bool:
        try:
            event = json.loads(text)
            if event["event"] == "progress":
                self._progress(int(event["step"]), int(event["of"]))
            return True
        except (ValueError, KeyError, TypeError):
            return False
