"""Files of keys: a private key for its owner alone, outside every Git work tree, and never twice."""

import os
import stat
from pathlib import Path


def read_key_file(path: Path) -> bytes:
    """Return the bytes of a file that the user named."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def read_private_file(path: Path) -> bytes:
    """Return the bytes of a private key, which nobody but its owner may read."""
    content = read_key_file(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ValueError(
            f"{path} can be read by others (mode {mode:04o}): `chmod 600 {path}`, or make a new pair"
        )
    return content


def write_new_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that is not there yet, durably; one that is there stays as it is and is a ValueError."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise ValueError(f"{path} cannot be made ({error.strerror}): name a new file") from None
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def require_outside_git(path: Path) -> None:
    """Refuse a place that Git could commit: one below a folder with a ``.git``."""
    place = path.resolve().parent
    for folder in (place, *place.parents):
        if (folder / ".git").exists():
            raise ValueError(
                f"{path} lies in the Git work tree {folder}, from where a private key is soon published: "
                "name a place outside"
            )
