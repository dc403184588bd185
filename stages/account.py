"""Trace and every other charge -> the epsilon really spent; fails over budget."""

from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json, sha256, write_json
from stages.ledger.ledger import Ledger
from stages.privacy.chain import chain_to_json
from stages.privacy.charges import Output, charges_json
from stages.privacy.plan import read_plan
from stages.privacy.statement import require_within_budget, sentence, statement_json
from stages.training.key_archive import RunKeyArchive
from stages.training.run_folder import retire_run


@dataclass(frozen=True, kw_only=True)
class Account(Stage):
    """Compose every charge into the privacy statement; destroy the run key of the recorded adapter."""

    plan: Path = reads("data/plan.json")
    trace: Path = reads("data/finetune/trace.json")
    importance: Path = reads("data/profile/profile.json")
    pruning: Path = reads("data/calibrate/pruning.json")
    metrics: Path = reads("data/evaluate/metrics.json")
    charges: Path = writes("data/account/charges.json", evidence=True)
    ledger: Path = writes("data/account/ledger.json", evidence=True)
    statement: Path = writes("data/account/statement.json", evidence=True)

    def run(self) -> None:
        """Write charges, the population's ledger and the statement; refuse a total over the target."""
        RunKeyArchive.load()  # refused before anything is written
        plan, trace = read_plan(read_json(self.plan), str(self.plan)), read_json(self.trace)
        charges = charges_json(
            plan, trace, before=_outputs(self.importance, self.pruning), after=_outputs(self.metrics)
        )
        chain = chain_to_json(plan.population.name, Ledger.load(make=False).entries(plan.population.name))
        write_json(self.charges, charges)
        write_json(self.ledger, chain)
        committed = (self.plan, self.trace, self.metrics, self.charges, self.ledger)
        evidence = {path.as_posix(): sha256(path) for path in committed}
        statement = statement_json(plan, charges, chain, evidence)
        require_within_budget(statement)
        write_json(self.statement, statement)
        for charge in charges["charges"]:
            if charge["release"] is not None:
                retire_run(charge["stage"], charge["release"])
        print(sentence(statement), flush=True)


def _outputs(*paths: Path) -> dict[str, Output]:
    return {path.as_posix(): (read_json(path), sha256(path)) for path in paths}


if __name__ == "__main__":
    main(Account)
