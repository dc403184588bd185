"""What makes a run faster or fit a machine and never changes what it computes.

Section ``speed`` of ``params.yaml``; no stage lists it as a DVC parameter and no privacy function accepts it.
Every key can be overridden by an environment variable, for example ``DUALPRIV_SPEED_MICRO_BATCH=64``.
"""

import math
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from stages.core.params import PARAMS, read_params
from stages.core.ranks import local_rank
from stages.core.schema import parse

PREFIX = "DUALPRIV_SPEED_"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Section ``speed`` of params.yaml."""

    device: str
    """A torch device such as ``cpu`` or ``cuda``; ``auto`` is cuda where there is one."""
    threads: int
    """CPU threads; 0 leaves the choice to torch."""
    micro_batch: int
    """Rows in one forward and backward pass."""
    micro_batch_tokens: int
    """Most tokens in one, padding included: rows times the longest; a unit larger than that goes alone."""
    memory_limit: float | None
    """GiB of tensors that a step may have alive at once above the weights; micro-batches are cut to fit."""
    recompute_activations: bool
    """Forget a layer's activations and recompute them in the backward pass: less memory, more time."""
    processes: int
    """Processes that share the units of a step (finetune) or the images (encode) on this machine."""
    shard_base: bool
    """Keep a part of the frozen base in each process (FSDP2); adapters stay whole."""
    checkpoint_every: int
    """Steps between checkpoints."""

    def collective(self) -> str:
        """Return, in words, what processes of one stage must have alike not to wait for each other."""
        limit = "a" if self.memory_limit is not None else "no"
        base = "sharded" if self.shard_base else "whole"
        return f"{base} base, {limit} memory limit, device {self.device.partition(':')[0]}"

    @classmethod
    def load(cls, params: Path = PARAMS) -> "Speed":
        """Read section ``speed`` and the environment."""
        values: dict[str, Any] = dict(read_params(params).get("speed", {}))
        kinds = get_type_hints(cls)
        for item in fields(cls):
            text = os.environ.get(PREFIX + item.name.upper())
            if text is not None:
                values[item.name] = _value(item.name, kinds[item.name], text)
        speed = parse(values, cls, f"{params}: section 'speed'")
        counts = (speed.micro_batch, speed.micro_batch_tokens, speed.checkpoint_every, speed.processes)
        if min(counts) < 1 or speed.threads < 0:
            raise ValueError(f"{params}: section 'speed' needs positive counts, got {speed}")
        if speed.memory_limit is not None and not 0 < speed.memory_limit < math.inf:
            raise ValueError(f"{params}: speed.memory_limit must be positive, got {speed.memory_limit}")
        return speed


def _value(name: str, kind: Any, text: str) -> Any:
    """Read a value from the environment; the schema checks it further."""
    if kind is str:
        return text
    words = {"true": True, "false": False} if kind is bool else {"null": None} if kind is not int else {}
    if text in words:
        return words[text]
    if kind is bool:
        raise ValueError(f"{PREFIX}{name.upper()} must be true or false, got {text!r}")
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        number = "a whole number" if kind is int else "a number or null"
        raise ValueError(f"{PREFIX}{name.upper()} must be {number}, got {text!r}") from None


def use(speed: Speed) -> Speed:
    """Set torch's threads, settle ``auto`` to a device, and return the settled record.

    Processes that share a machine share its cores, where ``threads`` leaves the choice to torch. On CUDA the
    same run gives the same bits.
    """
    import torch

    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if speed.threads or neighbours > 1:
        torch.set_num_threads(speed.threads or max(1, (os.cpu_count() or 1) // neighbours))
    device = speed.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and neighbours > 1:
        device = f"cuda:{local_rank()}"
    if device.startswith("cuda"):
        _repeat_on_cuda()
    return replace(speed, device=device)


def _repeat_on_cuda() -> None:
    """Have CUDA give the same bits each time, in whole float32, or refuse an operator that cannot."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to repeat itself
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = False
