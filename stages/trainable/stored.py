"""Read stored weights of what learned, none of which is taken for granted."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in a safetensors file: those ``expected``, in their shapes, and finite.

    Anything else is a ValueError that names the file and the weight; ``expected`` may be without values.
    """
    try:
        stored: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from None
    for name in sorted(expected.keys() | stored.keys()):
        if name not in stored or name not in expected:
            raise ValueError(f"{path} does not fit the configuration beside it: weight '{name}' is wrong")
        if stored[name].shape != expected[name].shape:
            raise ValueError(
                f"{path} does not fit the configuration beside it: weight '{name}' has shape "
                f"{tuple(stored[name].shape)}, not {tuple(expected[name].shape)}"
            )
        if not bool(stored[name].isfinite().all()):
            raise ValueError(f"{path} holds numbers that are not finite, in weight '{name}'")
    return stored
