"""The last stage: writes the statement that the flow shows; asks too where ``SMALL_ASKS`` is ``twice``."""

import os
from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json, write_json
from stages.core.fingerprint import ResolvedInputs
from stages.core.spending import Spending


@dataclass(frozen=True, kw_only=True)
class AccountStage(Stage):
    """State the total."""

    meta = {"approve": "spend"}

    total: Path = reads("models/total.json")
    by_hand: Path = reads("data/by_hand.json")
    statement: Path = writes("data/account/statement.json", evidence=True)

    def spending(self) -> Spending | None:
        """Say that stating spends, where it is to be asked about."""
        if os.environ.get("SMALL_ASKS") != "twice":
            return None
        inputs = ResolvedInputs.of(self).fingerprint()
        return Spending(
            stage=self.name(), population="numbers", what="the total", remains="the rest", fingerprint=inputs
        )

    def run(self) -> None:
        """State it."""
        write_json(self.statement, {"epsilon": read_json(self.total), "source": read_json(self.by_hand)})


if __name__ == "__main__":
    main(AccountStage)
