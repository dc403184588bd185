"""The last stage: writes the statement that the flow shows."""

from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class AccountStage(Stage):
    """State the total."""

    total: Path = reads("models/total.json")
    by_hand: Path = reads("data/by_hand.json")
    statement: Path = writes("data/account/statement.json", evidence=True)

    def run(self) -> None:
        """State it."""
        write_json(self.statement, {"epsilon": read_json(self.total), "source": read_json(self.by_hand)})


if __name__ == "__main__":
    main(AccountStage)
