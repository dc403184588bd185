"""The command ``dualpriv budget``: a plan before spending."""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.budget.books import Books
from pipeline.budget.figures import picture
from pipeline.budget.memory import Memory
from pipeline.budget.options import Option, options_of
from pipeline.budget.question import Asked, Question
from pipeline.budget.recommendation import Limits, Recommendation, recommend
from pipeline.budget.shown import show
from pipeline.budget.timing import Timing
from pipeline.runner import interrupted_by_sigterm
from pipeline.too_small import guess_bound, too_few_units, warnings_before
from stages.core.entry import quiet_accountants
from stages.core.files import write_text
from stages.core.progress import progress

SPENDS = (
    "nothing was spent: nothing is reserved or released, and no private record was read, for all of this "
    "follows from params.yaml, the model's config.json, the ledger and public records"
)


def budget_command(asked: Asked, to: Path | None, *, as_json: bool) -> int:
    """Print what every batch and number of steps would cost; returns 0 where one is recommended, else 1."""
    _require_limits(asked)
    if to is not None and to.suffix != ".svg":
        raise ValueError(f"--picture {to}: the picture is SVG, so name a file that ends in .svg")
    quiet_accountants()
    interrupted_by_sigterm()
    question = Question.of(asked)
    weights = question.weights[0]
    warnings = _warned(question)
    books = Books.of(question.population, question.target.relation)
    timing, memory = Timing.of(question, wanted=asked.with_time), Memory.of(question)
    limits = _limits(asked, timing, memory)
    wanted = len(question.batches) * len(question.steps)
    with redirect_stdout(sys.stderr), progress("budget", wanted) as advance:  # stdout is the document's
        options = options_of(question, timing, memory, books, advance)
    advice = recommend(options, limits, weights, question.configured_steps)
    found = _document(question, options, advice, warnings, {"time": timing.said, "memory": memory.said})
    found["ledger"] = {"place": books.place, "says": books.words()}
    if to is not None:
        write_text(to, picture(options, advice.option, weights, question.target.epsilon))
    if as_json:
        print(json.dumps(found, indent=2, sort_keys=True))
    else:
        show(found, question.estimator.rows_per_unit)
        if to is not None:
            print(f"picture: {to}", file=sys.stderr)
    return 0 if advice.option is not None else 1


def _warned(question: Question) -> list[str]:
    """Say at once, on standard error, what is too small; refuse what no run may do."""
    whole, population = question.whole_plan(), question.population
    found = warnings_before(question.target, population, whole, question.weights[0])
    more = (too_few_units(whole, weights, population) for weights in question.weights[1:])
    found += [sentence for sentence in more if sentence is not None]
    for sentence in found:
        print(f"budget: WARNING: {sentence}", file=sys.stderr, flush=True)
    return found


def _require_limits(asked: Asked) -> None:
    for option, value in (("--hours", asked.hours), ("--gib", asked.gib)):
        if value is not None and not value > 0:
            raise ValueError(f"{option} is a limit above zero, got {value:g}")
    if asked.hours is not None and not asked.with_time:
        raise ValueError("--hours limits the predicted time, and --no-time predicts none: give one of them")


def _limits(asked: Asked, timing: Timing, memory: Memory) -> Limits:
    if asked.hours is not None and timing.fixed is None:
        raise ValueError(f"--hours limits what is not known: {timing.said}")
    if asked.gib is not None and memory.plan is None:
        raise ValueError(f"--gib limits what is not known: {memory.said}")
    return Limits(hours=asked.hours, gib=asked.gib)


def _document(
    question: Question,
    options: tuple[Option, ...],
    advice: Recommendation,
    warnings: list[str],
    predicted: dict[str, str],
) -> dict[str, Any]:
    chosen, target = advice.option, question.target
    return {
        "population": asdict(question.population),
        "trained_units": question.trained,
        "target": asdict(target),
        "guess_bound": guess_bound(target.epsilon, target.delta),
        "estimator": question.estimator.kind,
        "slopes": question.slopes,
        "beside": [asdict(charge) for charge in question.others.charges],
        "weights": list(question.weights),
        "warnings": warnings,
        "predicted": predicted,
        "options": [option.to_json(question.weights) for option in options],
        "recommended": None if chosen is None else asdict(chosen.plan.sampling),
        "reasons": list(advice.reasons),
        "spends": SPENDS,
    }
