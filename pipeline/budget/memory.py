"""The memory of a step, predicted as ``dualpriv memory`` does: from config.json, without a GPU."""

import math
from dataclasses import dataclass, replace
from typing import Any

from pipeline.budget.question import Question, model_of
from pipeline.memory import GIB, Asked, rows_of
from stages.core.params import read_section

SPREAD = 6.0
"""Standard deviations above the expected batch, which a sampled batch stays below but once in a billion."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Predicts the peak of steps; a batch is cut into micro-batches, so a large one needs no more."""

    plan: Any
    """A ``MemoryPlan``; None where nothing is predicted."""
    rows: int
    """Most rows at once, by ``speed``."""
    said: str
    """What is predicted, or why nothing is."""

    @classmethod
    def of(cls, question: Question) -> "Memory":
        """Prepare the prediction for section ``trainable`` on the model, whatever weights are asked about."""
        from stages.training.memory import noise_waits_aside
        from stages.training.memory_methods import MemorySettings, methods_of
        from stages.training.memory_plan import MemoryPlan
        from stages.training.synthetic_rows import Shape

        params, preset = question.params, question.preset
        path = model_of(params, preset)
        if path is None:
            return cls(plan=None, rows=0, said="memory is not predicted: no config.json of the model is here")
        try:
            shape = rows_of(_NOTHING_SAID, preset.rows if preset else None, params, path)
        except ValueError as error:
            return cls(plan=None, rows=0, said=f"memory is not predicted here: {error} to `dualpriv memory`")
        settings = MemorySettings.of(params)
        recompute = read_section(params, "speed.recompute_activations", bool)
        method = next(iter(methods_of(settings, 1, recompute, False).values()))
        method = replace(
            method, noise_waits_aside=noise_waits_aside(read_section(params, "speed.device", str))
        )
        words = Shape(shape.text_tokens, shape.answer_tokens, shape.visual_tokens)
        plan = MemoryPlan.of(path, settings.model.precision, method, words)
        tokens = read_section(params, "speed.micro_batch_tokens", int) // plan.tokens_of_row
        rows = min(read_section(params, "speed.micro_batch", int), tokens)
        said = (
            f"memory is that of tensors in a step of one process on rows of {shape.visual_tokens} visual "
            f"tokens and {shape.text_tokens} of text, in the micro-batches of section speed; `dualpriv "
            "memory` takes it apart"
        )
        return cls(plan=plan, rows=rows, said=said)

    def peak_gib(self, batch: int) -> float | None:
        """Return the peak of a step on an expected batch; of whole units, at least one goes through."""
        if self.plan is None:
            return None
        unit = self.plan.method.rows_per_unit
        largest = math.ceil(batch + SPREAD * math.sqrt(batch)) * unit
        rows = max(unit, min(largest, self.rows) // unit * unit)
        return float(self.plan.need(rows).total / GIB)


_NOTHING_SAID = Asked(
    preset=None,
    model=None,
    gpu=None,
    gpus=None,
    visual_tokens=None,
    text_tokens=None,
    answer_tokens=None,
    batch=1,
    margin=None,
    every_method=False,
)
