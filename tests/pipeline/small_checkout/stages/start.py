"""The first stage: writes a number."""

from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, writes
from stages.core.entry import main
from stages.core.files import write_json


@dataclass(frozen=True, kw_only=True)
class Start:
    """Section ``start``."""

    value: int


@dataclass(frozen=True, kw_only=True)
class StartStage(Stage):
    """Write the number to count from."""

    start: Start
    number: Path = writes("data/number.json")

    def run(self) -> None:
        """Write it."""
        if self.start.value < 0:
            raise ValueError(f"params.yaml: start.value must not be negative, got {self.start.value}")
        write_json(self.number, self.start.value)


if __name__ == "__main__":
    main(StartStage)
