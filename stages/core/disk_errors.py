"""What the operating system said of a disk, where the error of a library hides it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Raise as an OSError of ``path`` what the operating system said to safetensors.

    >>> with system_errors(Path("adapter")):
    ...     raise SafetensorError("I/O error: No space left on device (os error 28)")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'adapter'
    """
    try:
        yield
    except SafetensorError as error:
        said = re.search(r"\(os error (\d+)\)", str(error))
        if said is None:
            raise
        number = int(said[1])
        raise OSError(number, os.strerror(number), str(path)) from None
