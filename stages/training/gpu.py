"""GPUs by name: how much memory a program gets of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.schema import parse

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory_gib: float
    """What torch reports as its total memory, a little below the number in its name."""

    def __post_init__(self) -> None:
        """Refuse a GPU without memory."""
        if not self.memory_gib > 0:
            raise ValueError(f"GPU '{self.name}' must have memory, got memory_gib {self.memory_gib}")

    def limit(self, margin: float) -> int:
        """Return the bytes that may be used when a share ``margin`` of all is left free."""
        if not 0 <= margin < 1:
            raise ValueError(f"the margin is a share of the GPU's memory, in [0, 1), got {margin}")
        return int(self.memory_gib * GIB * (1 - margin))


_KNOWN = (
    Gpu(name="a100-40gb", memory_gib=39.3),
    Gpu(name="a100-80gb", memory_gib=79.1),
    Gpu(name="h100-80gb", memory_gib=79.1),
    Gpu(name="h20-96gb", memory_gib=95.0),
)
GPUS = {gpu.name: gpu for gpu in _KNOWN}
"""Those that are known by name."""


def gpu_of(name: str) -> Gpu:
    """Return a GPU by its name, or as a YAML file with ``name`` and ``memory_gib`` describes it."""
    if name in GPUS:
        return GPUS[name]
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"'{name}' is neither a known GPU ({', '.join(GPUS)}) nor a file that describes one with the "
            "keys name and memory_gib"
        )
    try:
        said: Any = YAML(typ="safe", pure=True).load(path)
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return parse(said, Gpu, str(path))
