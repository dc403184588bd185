"""The date and the machine of a measurement, in words."""

import datetime
import os
import platform

import torch


def about() -> str:
    """Return when and where this runs."""
    return (
        f"{datetime.date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
