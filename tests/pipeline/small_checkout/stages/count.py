"""The long stage: counts slowly and goes on from where it was killed.

``SMALL_SECONDS`` is how long a step takes; at step ``SMALL_CRASH_AT`` the first attempt kills itself; where
``SMALL_ASKS`` is set, a person is asked before counting begins.
"""

import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.arithmetic.increment import increment

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json, write_json
from stages.core.fingerprint import ResolvedInputs
from stages.core.progress import progress
from stages.core.scratch import scratch_folder
from stages.core.spending import Spending
from stages.privacy.approval import Approval, NotAsked
from stages.training.approved import approval_given


@dataclass(frozen=True, kw_only=True)
class Count:
    """Section ``count``."""

    steps: int


@dataclass(frozen=True, kw_only=True)
class CountStage(Stage):
    """Count up from the number."""

    meta = {"approve": "spend", "retries": 1, "releases": True}

    count: Count
    number: Path = reads("data/number.json")
    total: Path = writes("models/total.json")

    def spending(self) -> Spending | None:
        """Say what counting spends, unless it goes on."""
        if not os.environ.get("SMALL_ASKS") or (scratch_folder("count") / "state.json").exists():
            return None
        return Spending(
            stage=self.name(),
            population="numbers",
            what=f"{self.count.steps} steps",
            remains="all of them",
            fingerprint=ResolvedInputs.of(self).fingerprint(),
        )

    def run(self) -> None:
        """Count, one step at a time, keeping the process of each step in ``scratch/``."""
        saved = scratch_folder("count") / "state.json"
        if not saved.exists():
            approval = approval_given(ResolvedInputs.of(self).fingerprint())
            if os.environ.get("SMALL_ASKS") and isinstance(approval, NotAsked):  # as the ledger refuses
                raise ValueError("nobody was asked")
            said = asdict(approval) if isinstance(approval, Approval) else None
            write_json(saved.with_name("approval.json"), said)
        total, pids = read_json(saved) if saved.exists() else (read_json(self.number), [])
        with progress("count", self.count.steps) as advance:
            for step in range(len(pids), self.count.steps):
                time.sleep(float(os.environ.get("SMALL_SECONDS", "0")))
                total, pids = increment(total), [*pids, os.getpid()]
                write_json(saved, [total, pids])
                advance(step + 1)
                if os.environ.get("SMALL_CRASH_AT") == str(step + 1) and len(set(pids)) == 1:
                    print("about to crash", flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
        write_json(self.total, total)
        saved.rename(saved.with_name("finished.json"))


if __name__ == "__main__":
    main(CountStage)
