"""The state of a run between two steps, as one atomic safetensors file."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stages.core.files import FULL, write_bytes
from stages.training.accumulated import Scores
from stages.training.intents import way_out
from stages.training.optimizer import OptimizerState

_OF_OPTIMIZER = ("first", "second", "updates", "average")


@dataclass(frozen=True)
class Checkpoint:
    """Weights and optimizer after ``step`` steps of the run with this fingerprint."""

    fingerprint: str
    step: int
    weights_P: Tensor
    optimizer: OptimizerState
    scores: Scores
    """Those of accumulated update pruning; zeros under any other rule."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in one step; a full disk or a crash leaves the previous one valid.

    A full disk is a ValueError that says so: the run may be started again from there.
    """
    tensors = {
        "weights": checkpoint.weights_P.cpu(),
        "first": checkpoint.optimizer.first_P.cpu(),
        "second": checkpoint.optimizer.second_P.cpu(),
        "updates": checkpoint.optimizer.updates_P.cpu(),
        "average": checkpoint.optimizer.average_P.cpu(),
        "scores": checkpoint.scores.total_B,
    }
    about = {"state": json.dumps({"fingerprint": checkpoint.fingerprint, "step": checkpoint.step})}
    content = save(tensors, metadata=about)
    try:
        write_bytes(path, content, mode=0o600)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ValueError(
            f"no space left on disk for {path}: free {len(content)} bytes and run it again, it goes on from "
            "the checkpoint before, which is whole"
        ) from None


def load_checkpoint(path: Path, fingerprint: str, device: str) -> Checkpoint | None:
    """Return the checkpoint, or None where there is none; one of other inputs is refused."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device=device) as file:
            state = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in ("weights", *_OF_OPTIMIZER, "scores")}
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is not a checkpoint ({error}): {way_out(path.parent)}") from None
    if state["fingerprint"] != fingerprint:
        raise ValueError(
            f"{path} is a checkpoint of other inputs; resuming it would reuse its noise: "
            f"{way_out(path.parent)}"
        )
    return Checkpoint(
        fingerprint,
        state["step"],
        tensors["weights"],
        OptimizerState(*(tensors[name] for name in _OF_OPTIMIZER)),
        Scores(tensors["scores"].cpu()),
    )
