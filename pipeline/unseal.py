"""The command ``dualpriv unseal-key``: the archived key of a release, opened with the private key."""

import os
from pathlib import Path

from stages.privacy.sealing import private_key, unseal
from stages.training.key_archive import sealed_key


def unseal_command(release: str, private: Path, to: Path) -> None:
    """Write the 32 bytes of the run key of ``release`` to a new file that its owner alone may read."""
    key = unseal(sealed_key(release), private_key(_read(private), str(private)), release)
    try:
        handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ValueError(f"{to} cannot be made ({error.strerror}): name a new file") from None
    with os.fdopen(handle, "wb") as file:
        file.write(key.secret)
    print(f"{to} holds the run key of release {release}: whoever reads it can subtract the noise")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
