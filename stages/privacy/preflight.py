"""Check the engine on the model at hand, before any private record is touched.

Every check is one that a public library was seen to fail silently: attribution, coupling between rows,
weights that the gradient reaches and the norm does not, weights that never move.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from stages.privacy.clipping_rule import Clipping
from stages.privacy.segments import Segments
from stages.privacy.trainable_layers import TrainableLayers
from stages.privacy.unit_gradients import Norms, UnitGradients

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest relative difference that rounding explains, by the precision of the model."""
_STIR = 0.02


@dataclass(frozen=True)
class Subject:
    """A model, what learns of it, and a few rows of at least two units to try it on."""

    model: nn.Module
    trainable: TrainableLayers
    rows_of_unit: Sequence[Sequence[int]]
    losses: Callable[[Sequence[int]], Tensor]
    """Returns one loss for each of the given rows, in their order."""
    segments: Callable[[Sequence[int], Sequence[int]], Segments]
    """From rows and the unit of each to the attribution of their batch."""

    def gradients(self, units: Sequence[int], norms: Norms = "choose") -> UnitGradients:
        """Run the engine on some units as one batch."""
        rows = [row for unit in units for row in self.rows_of_unit[unit]]
        owners = [place for place, unit in enumerate(units) for _ in self.rows_of_unit[unit]]
        segments = self.segments(rows, owners)
        return UnitGradients.of(self.trainable, segments, lambda: self.losses(rows), norms=norms)

    def slow_gradient(self, unit: int) -> Tensor:
        """Return one unit's gradient by plain autograd, one row at a time, shape (P,) in float64."""
        weights = list(self.trainable.parameters().values())
        total_P = torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64)
        for row in self.rows_of_unit[unit]:
            parts = torch.autograd.grad(self.losses([row])[0], weights, allow_unused=True)
            total_P += torch.cat(
                [
                    (torch.zeros_like(weight) if part is None else part).flatten().double().cpu()
                    for part, weight in zip(parts, weights, strict=True)
                ]
            )
        return total_P / len(self.rows_of_unit[unit])


@dataclass(frozen=True)
class Report:
    """What preflight measured; ``reasons`` is empty where the engine may be trusted with this model."""

    units: int
    max_relative_error: float | None
    """Of a unit's gradient, engine against autograd."""
    max_contribution_over_clip: float | None
    """How far dropping one unit moves the clipped sum, over the clip."""
    neighbour_drift: float | None
    """How much a unit's gradient changes with the other units of its batch, relative."""
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the measurements, the verdict and the reasons."""
        return {**asdict(self), "reasons": list(self.reasons), "verdict": "fail" if self.reasons else "pass"}


def preflight(subject: Subject) -> Report:
    """Compare the engine with autograd on ``subject``; a refusal names the module and the reason.

    Guarantee: the weights are left as they were, bit for bit.
    """
    units = len(subject.rows_of_unit)
    faults = list(structural_faults(subject.model))
    precision = next(subject.model.parameters()).dtype
    if precision not in TOLERANCE:
        faults.append(f"{precision} would need a gradient scaler, whose skipped steps depend on the data")
    if faults:
        return Report(units, None, None, None, tuple(faults))
    before_P = subject.trainable.flat()
    noise_P = torch.randn(before_P.shape, generator=torch.Generator().manual_seed(0))
    subject.trainable.assign(
        before_P + _STIR * noise_P.to(before_P)
    )  # LoRA starts where half its weights rest
    try:
        return _measure(subject)
    except ValueError as refusal:
        return Report(units, None, None, None, (str(refusal),))
    finally:
        subject.trainable.assign(before_P)


def structural_faults(model: nn.Module) -> Iterator[str]:
    """Name the modules that no per-unit gradient is exact for."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            yield f"{name} is batch normalisation in training mode: it couples the units of a batch"
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            yield f"{name} drops at random with probability {module.p}: two passes would differ"
        dora = getattr(module, "use_dora", None)
        if isinstance(dora, dict) and any(dora.values()):
            yield f"{name} is a DoRA layer, whose magnitude is reached outside linear layers: use plain LoRA"
        if type(module).__name__ == "TrainableTokensLayer":
            yield f"{name} trains token indices, whose per-unit norm is unknown: train linear layers only"


def _measure(subject: Subject) -> Report:
    units = range(len(subject.rows_of_unit))
    together = subject.gradients(units)
    together_UP = together.stacked()
    slow_UP = torch.stack([subject.slow_gradient(unit) for unit in units])
    norms_U = slow_UP.norm(dim=1)
    reasons = [
        f"{name} never moves: its gradient is zero for every unit"
        for name, where in subject.trainable.slices().items()
        if not slow_UP[:, where].any()
    ]
    if not bool((norms_U > 0).all()) or not bool(norms_U.isfinite().all()):
        return Report(len(units), None, None, None, (*reasons, "a unit's gradient is zero or not finite"))
    tolerance = TOLERANCE[next(subject.model.parameters()).dtype]
    error, worst = 0.0, ""
    even = [
        unit for unit in units if len(subject.rows_of_unit[unit]) == 1
    ]  # units of one size take another path
    for chosen in (list(units), even):
        for norms in get_args(Norms) if chosen else ():
            found = subject.gradients(chosen, norms)
            off, where = _error(subject.trainable, found, slow_UP[chosen], tolerance)
            error, worst = (off, where) if not off <= error else (error, worst)
    clipping = Clipping(float(norms_U.min()) / 2)
    sum_P = together.clipped_sum(clipping).sum_P.cpu()
    contribution, drift = 0.0, 0.0
    for unit in units:
        others = subject.gradients([other for other in units if other != unit])
        moved_P = sum_P - others.clipped_sum(clipping).sum_P.cpu()
        contribution = max(contribution, float(moved_P.norm()) / clipping.clip)
        alone_P = subject.gradients([unit]).stacked()[0]
        drift = max(drift, float((together_UP[unit] - alone_P).norm() / norms_U[unit]))
    if not error <= tolerance:
        reasons.append(
            f"per-unit gradients are off by {error:.2g} (tolerance {tolerance:g}), most at {worst}"
        )
    if not contribution <= 1 + tolerance:
        reasons.append(f"dropping one unit moves the clipped sum by {contribution:.3g} times the clip")
    if not drift <= tolerance:
        reasons.append(f"a unit's gradient changes by {drift:.2g} with the other units of its batch")
    return Report(len(units), error, contribution, drift, tuple(reasons))


def _error(
    trainable: TrainableLayers, found: UnitGradients, slow_UP: Tensor, tolerance: float
) -> tuple[float, str]:
    """Return the largest relative error of a unit's norm or of one weight's part of its gradient, and where.

    A weight's error is relative to its own gradient, or to ten tolerances of the whole one where that is
    larger: below, rounding is all there is to see.
    """
    norms_U = slow_UP.norm(dim=1)
    errors = {"the norm": (found.norms_U() - norms_U).abs() / norms_U}
    found_UP = found.stacked()
    for name, where in trainable.slices().items():
        own_U = slow_UP[:, where].norm(dim=1).maximum(10 * tolerance * norms_U)
        errors[name] = (found_UP[:, where] - slow_UP[:, where]).norm(dim=1) / own_U
    worst = max(errors, key=lambda name: float(errors[name].nan_to_num(nan=math.inf).max()))
    return float(errors[worst].nan_to_num(nan=math.inf).max()), worst
