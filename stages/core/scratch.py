"""The folder for what must survive a crash and never be published: checkpoints, keys, diagnostics.

``scratch/`` at the root of the checkout, or ``DUALPRIV_SCRATCH``. It lies outside Git and outside every DVC
output. Under ``dvc exp run --temp`` the workspace is a copy, and ``DVC_ROOT`` names the checkout that owns
the scratch folder.
"""

import os
from pathlib import Path

from stages.core.files import sync_directory


def scratch_folder(*parts: str) -> Path:
    """Return a folder below the scratch root, as ``private_folder`` makes it."""
    given = os.environ.get("DUALPRIV_SCRATCH")
    root = Path(given) if given else Path(os.environ.get("DVC_ROOT") or Path.cwd()) / "scratch"
    return private_folder(root.joinpath(*parts))


def private_folder(folder: Path) -> Path:
    """Return ``folder``, resolved; it and every folder made on the way are the owner's only.

    Guarantee: a folder made here is on disk on return, so that what is flushed inside it can be found again.
    """
    folder = folder.resolve()
    for level in (*reversed(folder.parents), folder):
        if not level.exists():
            level.mkdir(exist_ok=True, mode=0o700)  # with parents=True, the parents would be readable by all
            sync_directory(level.parent)
    return folder
