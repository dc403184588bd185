"""The methods whose memory is compared: that of params.yaml, and every other with its settings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stages.core.params import read_section
from stages.privacy.plan import EstimatorKind
from stages.trainable.settings import Kind, Trainable
from stages.training.estimator import Estimator
from stages.training.memory_plan import Method
from stages.training.optimizer import Optim
from stages.vlm.source import Model

RECOMPUTED = ", activations recomputed"
_OTHERS: Mapping[str, tuple[Kind, EstimatorKind]] = {
    "non-private, LoRA": ("lora", "nonprivate"),
    "DP-SGD, LoRA": ("lora", "gradient"),
    "DP-SGD, FFA-LoRA": ("ffa_lora", "gradient"),
    "DP-SGD, side network": ("side", "gradient"),
    "DP-SGD, reversible": ("reversible", "gradient"),
    "zeroth order, LoRA": ("lora", "zeroth_order"),
}


@dataclass(frozen=True)
class MemorySettings:
    """The sections of params.yaml that a step's memory hangs on."""

    trainable: Trainable
    estimator: Estimator
    optim: Optim
    model: Model

    @classmethod
    def of(cls, params: dict[str, Any]) -> "MemorySettings":
        """Read them."""
        return cls(
            read_section(params, "trainable", Trainable),
            read_section(params, "estimator", Estimator),
            read_section(params, "optim", Optim),
            read_section(params, "model", Model),
        )

    def method(self, kind: Kind, estimator: EstimatorKind, *, gpus: int, recompute: bool) -> Method:
        """Return a method with these settings."""
        return Method(
            trainable=replace(self.trainable, kind=kind),
            estimator=estimator,
            groups=self.estimator.clip_groups,
            noise=self.estimator.zeroth_order.noise if estimator == "zeroth_order" else "gaussian",
            rows_per_unit=self.estimator.rows_per_unit,
            optim=self.optim,
            recompute=recompute,
            processes=gpus,
        )


def methods_of(settings: MemorySettings, gpus: int, recompute: bool, every: bool) -> dict[str, Method]:
    """Return methods by name: first that of params.yaml, then it with activations kept or recomputed instead.

    ``every``: and all others, with their activations kept, or recomputed where that means something. What
    does not run is left out: reversible layers forget their activations anyway, and are not sharded.
    """
    own = settings.trainable.kind, settings.estimator.kind
    found = dict[str, Method]()
    for name, (kind, estimator) in {"params.yaml": own, **(_OTHERS if every else {})}.items():
        if kind == "reversible" and gpus > 1:
            continue
        forgets = kind != "reversible" and estimator != "zeroth_order"
        for again in (recompute, not recompute) if forgets else (False,):
            called = f"{name}{RECOMPUTED}" if again else name
            found[called] = settings.method(kind, estimator, gpus=gpus, recompute=again)
    return found
