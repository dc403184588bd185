"""Git, asked in a checkout."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_NOBODY = {"NAME": "dualpriv", "EMAIL": "dualpriv@localhost"}


def git(root: Path, *arguments: str) -> str:
    """Return what Git says; what it refuses is a ValueError."""
    found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if found.returncode:
        said = found.stderr.strip().splitlines()
        raise ValueError(f"git {arguments[0]} in {root}: {said[-1] if said else 'failed'}")
    return found.stdout.strip()


def identity(root: Path) -> Mapping[str, str]:
    """Return the variables that let commits be made where Git knows nobody; none where it knows somebody."""
    given = {}
    for key, value in _NOBODY.items():
        asked = ["git", "config", f"user.{key.lower()}"]
        known = subprocess.run(asked, cwd=root, capture_output=True, text=True).stdout.strip()
        for role in ("AUTHOR", "COMMITTER"):
            if not known and f"GIT_{role}_{key}" not in os.environ:
                given[f"GIT_{role}_{key}"] = value
    return given


def uncommitted(root: Path, *paths: str, untracked: bool = True) -> list[str]:
    """Return what differs below ``paths`` from what is committed, new files among it if ``untracked``."""
    if not paths:
        return []
    new = "--untracked-files=" + ("normal" if untracked else "no")
    changed = git(root, "status", "--porcelain", new, "--", *paths).splitlines()
    return [line.split(maxsplit=1)[1] for line in changed]
