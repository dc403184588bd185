"""A frozen stage: run by hand, never by the runner."""

from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, writes
from stages.core.entry import main
from stages.core.files import write_json


@dataclass(frozen=True, kw_only=True)
class ByHandStage(Stage):
    """Write a file once, by hand."""

    frozen = True

    made: Path = writes("data/by_hand.json", evidence=True)

    def run(self) -> None:
        """Write it."""
        write_json(self.made, "made by hand")


if __name__ == "__main__":
    main(ByHandStage)
