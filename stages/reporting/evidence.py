"""The stored evidence of one finished run, read once and checked to belong together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from stages.core.files import read_json, sha256
from stages.privacy.canary_evidence import CanaryEvidence, read_canaries
from stages.privacy.plan import Plan, read_plan
from stages.trainable.adapters import adapter_files
from stages.trainable.settings import Trainable
from stages.training.optimizer import Optim
from stages.training.update_pruning import Update
from stages.vlm.family import weight_shapes
from stages.vlm.selection import TokenSelection
from stages.vlm.source import Model


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The sections of params.yaml that the pages name; all of them public."""

    trainable: Trainable
    update: Update
    tokens: TokenSelection
    optim: Optim
    model: Model
    rows_at_once: int
    """Public rows on which calibrate counted the bytes of a step."""

    @property
    def base(self) -> str:
        """Return the name by which others know the backbone: a hub id, or a directory."""
        return self.model.name


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run decided, executed, spent and achieved; nothing here is about a single record."""

    plan: Plan
    trace: Mapping[str, Any]
    charges: Mapping[str, Any]
    statement: Mapping[str, Any]
    metrics: Mapping[str, Any]
    importance: Mapping[str, Any]
    pruning: Mapping[str, Any]
    canaries: CanaryEvidence
    layer_picture: bytes
    """PNG: what each encoder layer looks at in public images."""
    patch_picture: bytes
    """PNG: which patches of public images every rule keeps, merges and drops."""
    statement_digest: str
    """SHA-256 of the statement, which is what somebody signs."""
    blocks: tuple[int, ...]
    """Weights in each matrix of the adapter."""

    @property
    def weights(self) -> int:
        """Return how many weights learned."""
        return sum(self.blocks)

    @property
    def usual_block(self) -> int:
        """Return the median number of weights in a matrix."""
        return median_low(self.blocks)


def read_evidence(
    *,
    plan: Path,
    trace: Path,
    charges: Path,
    statement: Path,
    metrics: Path,
    importance: Path,
    pruning: Path,
    canaries: Path,
    layer_picture: Path,
    patch_picture: Path,
    adapter: Path,
) -> Evidence:
    """Read the evidence files.

    Guarantee: plan, trace, charges and metrics are byte for byte those that the statement commits to, what
    was chosen before training is what the charges name, and the adapter is the one that the trace names and
    that was asked about canaries; anything else is a ValueError, so that no page puts a guarantee beside
    another run's weights or figures.
    """
    found = Evidence(
        plan=read_plan(read_json(plan), str(plan)),
        trace=read_json(trace),
        charges=read_json(charges),
        statement=read_json(statement),
        metrics=read_json(metrics),
        importance=read_json(importance),
        pruning=read_json(pruning),
        canaries=read_canaries(read_json(canaries), str(canaries)),
        layer_picture=layer_picture.read_bytes(),
        patch_picture=patch_picture.read_bytes(),
        statement_digest=sha256(statement),
        blocks=tuple(shape[0] * shape[1] for _, shape in sorted(weight_shapes(adapter).items())),
    )
    committed = found.statement["evidence"].values()
    for path in (plan, trace, charges, metrics):
        if sha256(path) not in committed:
            raise ValueError(f"{path} is not the file that {statement} commits to: run `dvc repro account`")
    for path in (importance, pruning):
        for charge in found.charges["charges"]:
            if path.match(charge["released"]) and sha256(path) != charge["digest"]:
                raise ValueError(f"{path} is not the file that {charges} names: run `dvc repro account`")
    for name in adapter_files(adapter):
        if sha256(adapter / name) != found.trace["adapter"].get(name):
            raise ValueError(f"{adapter / name} is not the file that {trace} names: run `dvc repro finetune`")
    if read_json(canaries)["adapter"] != found.trace["adapter"]:
        raise ValueError(f"{canaries} is about another adapter than {trace}: run `dvc repro canaries`")
    return found
