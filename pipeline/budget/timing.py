"""The time of a run, predicted from a few steps on public records of an earlier pass."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.budget.question import Question
from pipeline.compare.surroundings import failures_told
from pipeline.runner import Runner
from stages.core.files import read_json, write_json

PREPARED = ("models/backbone", "data/records/public", "data/calibrate/pruning.json")
"""What steps are timed on: an earlier pass has made it."""
UNITS, REPEATS = 64, 5
"""Public units in the larger of the steps that are timed, and how often each is."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a step takes: a part that is the same for any batch, and a part for each unit."""

    fixed: float | None
    """Seconds; None where nothing is predicted."""
    per_unit: float
    said: str
    """What was timed, or why nothing was, and what to do then."""

    @classmethod
    def of(cls, question: Question, *, wanted: bool) -> "Timing":
        """Time steps in a process of their own, on public records alone; nothing of it is kept."""
        reason = _why_not(question, wanted)
        if reason is not None:
            return cls(fixed=None, per_unit=0.0, said=f"time is not predicted: {reason}")
        sampling = question.sampling(question.batches[0], question.steps[0])
        params = question.params | {"sampling": asdict(sampling)}
        with tempfile.TemporaryDirectory() as folder, failures_told():
            request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
            write_json(request, {"params": params, "units": UNITS, "repeats": REPEATS})
            Runner(Path.cwd()).program(
                "stages.training.step_time", str(request), str(answer), name="calibration"
            )
            return cls.through(read_json(answer))

    @classmethod
    def through(cls, found: dict[str, Any]) -> "Timing":
        """Lay a line through the steps that were timed."""
        small, large = found["steps"][0], found["steps"][-1]
        grown = large["units"] - small["units"]
        slope = (large["seconds"] - small["seconds"]) / grown if grown else large["seconds"] / large["units"]
        per_unit = max(0.0, slope)
        fixed = max(0.0, large["seconds"] - per_unit * large["units"])
        said = (
            f"time is predicted for this machine ({found['about']}) from steps on {small['units']} and "
            f"{large['units']} public units; preparing, loading and checkpoints come on top"
        )
        return cls(fixed=fixed, per_unit=per_unit, said=said)

    def seconds(self, batch: int, steps: int) -> float | None:
        """Return what all steps take."""
        return None if self.fixed is None else steps * (self.fixed + self.per_unit * batch)


def _why_not(question: Question, wanted: bool) -> str | None:
    if not wanted:
        return "--no-time was said"
    if question.preset is not None:
        return (
            "a preset's model is not here; put it into params.yaml with `dualpriv use` and prepare it there"
        )
    missing = [path for path in PREPARED if not Path(path).exists()]
    if missing:
        return (
            f"{missing[0]} is not here, and steps are timed on public records and the model of a prepared "
            "checkout: `dualpriv repro calibrate` prepares it"
        )
    return None
