"""The date and the machine of a measurement, in words."""

import datetime
import os
import platform

import torch


def machine() -> str:
    """Return where this runs."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )


def about() -> str:
    """Return when and where this runs."""
    return f"{datetime.date.today().isoformat()}, {machine()}"
