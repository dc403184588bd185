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
    checkpoint_every: int
    """Steps between checkpoints."""

    @classmethod
    def load(cls, params: Path = PARAMS) -> "Speed":
        """Read section ``speed`` and the environment."""
        values: dict[str, Any] = dict(read_params(params).get("speed", {}))
        for item in fields(cls):
            text = os.environ.get(PREFIX + item.name.upper())
            if text is not None:
                values[item.name] = text if item.type in (str, "str") else _whole_number(item.name, text)
        speed = parse(values, cls, f"{params}: section 'speed'")
        if speed.micro_batch < 1 or speed.checkpoint_every < 1 or speed.threads < 0:
            raise ValueError(f"{params}: section 'speed' needs positive counts, got {speed}")
        return speed


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
