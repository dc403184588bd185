"""The date and the machine of a measurement, in words."""

import datetime
import os
import platform

import torch


def machine(device: str = "cpu") -> str:
    """Return where this runs, the GPU's name first where ``device`` is one."""
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.startswith("cuda") else ""
    return (
        f"{gpu}{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )


def about(device: str = "cpu") -> str:
    """Return when and where this runs."""
    return f"{datetime.date.today().isoformat()}, {machine(device)}"


def finished(device: str) -> None:
    """Return once ``device`` has done what it was given: a GPU works on after a call has returned."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
