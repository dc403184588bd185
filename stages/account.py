"""Trace and every other charge -> the epsilon really spent; fails over budget."""

from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, reads, writes
from stages.core.entry import main
from stages.core.files import read_json, sha256, write_json
from stages.evaluation.settings import EvaluateSettings
from stages.privacy.charges import charges_json
from stages.privacy.plan import read_plan
from stages.privacy.statement import require_within_budget, sentence, statement_json
from stages.training.key_archive import RunKeyArchive
from stages.training.run_folder import retire_run


@dataclass(frozen=True, kw_only=True)
class Account(Stage):
    """Compose every charge into the privacy statement; destroy the run key of the recorded adapter."""

    evaluate: EvaluateSettings
    plan: Path = reads("data/plan.json")
    trace: Path = reads("data/finetune/trace.json")
    importance: Path = reads("data/profile/profile.json")
    calibration: Path = reads("data/calibrate/calibration.json")
    charges: Path = writes("data/account/charges.json", evidence=True)
    statement: Path = writes("data/account/statement.json", evidence=True)

    def run(self) -> None:
        """Write charges and statement; refuse a total over the target."""
        RunKeyArchive.load()  # refused before anything is written
        plan, trace = read_plan(read_json(self.plan), str(self.plan)), read_json(self.trace)
        choices = {path.as_posix(): sha256(path) for path in (self.importance, self.calibration)}
        charges = charges_json(plan, trace, public_choices=choices, heldout_release=self.evaluate.release)
        write_json(self.charges, charges)
        evidence = {path.as_posix(): sha256(path) for path in (self.plan, self.trace, self.charges)}
        statement = statement_json(plan, charges, evidence)
        require_within_budget(statement)
        write_json(self.statement, statement)
        retire_run("finetune", trace["fingerprint"], trace["release"], len(trace["steps"]))
        for run in trace["abandoned"]:
            retire_run("finetune", run["run"], run["release"], run["steps"])
        print(sentence(statement), flush=True)


if __name__ == "__main__":
    main(Account)
