"""What makes a run faster or fit a machine and never changes what it computes.

Section ``speed`` of ``params.yaml``; no stage lists it as a DVC parameter and no privacy function accepts it.
Every key can be overridden by an environment variable, for example ``DUALPRIV_SPEED_MICRO_BATCH=64``.
"""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from stages.core.params import PARAMS, read_params
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
    recompute_activations: bool
    """Forget a layer's activations and recompute them in the backward pass: less memory, more time."""
    checkpoint_every: int
    """Steps between checkpoints."""

    @classmethod
    def load(cls, params: Path = PARAMS) -> "Speed":
        """Read section ``speed`` and the environment."""
        values: dict[str, Any] = dict(read_params(params).get("speed", {}))
        for item in fields(cls):
            text = os.environ.get(PREFIX + item.name.upper())
            if text is not None:
                values[item.name] = _value(item.name, item.type, text)
        speed = parse(values, cls, f"{params}: section 'speed'")
        counts = (speed.micro_batch, speed.micro_batch_tokens, speed.checkpoint_every)
        if min(counts) < 1 or speed.threads < 0:
            raise ValueError(f"{params}: section 'speed' needs positive counts, got {speed}")
        return speed


def _value(name: str, kind: Any, text: str) -> Any:
    if kind in (str, "str"):
        return text
    if kind in (bool, "bool"):
        if text not in ("true", "false"):
            raise ValueError(f"{PREFIX}{name.upper()} must be true or false, got {text!r}")
        return text == "true"
    return _whole_number(name, text)


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{PREFIX}{name.upper()} must be a whole number, got {text!r}") from None


def use(speed: Speed) -> Speed:
    """Set torch's threads, settle ``auto`` to a device, and return the settled record."""
    import torch

    if speed.threads:
        torch.set_num_threads(speed.threads)
    if speed.device == "auto":
        return replace(speed, device="cuda" if torch.cuda.is_available() else "cpu")
    return speed
