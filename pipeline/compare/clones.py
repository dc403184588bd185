"""Private clones of the checkout in which experiments run: what a person works on is not moved.

DVC prepares an experiment in the checkout that it is started in, even for ``--temp``, and one at a time; a
run that is stopped there would leave somebody's parameters changed. Clones share DVC's cache and scratch.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runner import Runner, environment

DECIDES = ("stages", "pipeline/python.sh", "params.yaml", "dvc.yaml")
"""What has to be committed, for a clone holds what is."""


@dataclass(frozen=True)
class Clone:
    """One clone, in which one experiment runs at a time."""

    root: Path
    """The checkout that it is of."""
    runner: Runner

    @classmethod
    def of(cls, root: Path, folder: Path, linked: Iterable[Path]) -> "Clone":
        """Make a clone at ``folder``, in place of one that an earlier call left.

        ``linked`` are the files and folders that runs read and Git does not know, relative to the checkout.
        """
        shutil.rmtree(folder, ignore_errors=True)
        git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
        git(folder, "checkout", "--quiet", "--detach", git(root, "rev-parse", "HEAD"))
        for path in linked:
            _link(root / path, folder / path)
        cache = _dvc(root, "cache", "dir").splitlines()[-1]
        _dvc(folder, "cache", "dir", "--local", cache)
        _dvc(folder, "checkout", "--quiet", "--allow-missing")  # the rest comes from the run cache
        return cls(root, Runner(folder))

    def run(self, name: str, changes: Mapping[str, str], targets: Sequence[str]) -> None:
        """Run an experiment and hand it to the checkout; raises as ``Runner.run``."""
        folder = self.runner.root
        git(folder, "reset", "--quiet", "--hard")
        self.runner.experiment(name, changes, targets)
        refs = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
        for ref in refs:
            if ref.endswith(f"/{name}"):
                git(self.root, "fetch", "--quiet", str(folder), f"+{ref}:{ref}")

    def remove(self) -> None:
        """Remove the clone, when what it made has been handed over."""
        shutil.rmtree(self.runner.root, ignore_errors=True)


def require_committed(root: Path) -> None:
    """Refuse changes that a clone would not have."""
    changed = git(root, "status", "--porcelain", "--", *DECIDES).splitlines()
    if changed:
        names = ", ".join(line.split(maxsplit=1)[1] for line in changed[:3])
        raise ValueError(f"a comparison runs what is committed: commit {names}, or restore what is there")


def unknown_to_git(root: Path, paths: Iterable[Path]) -> list[Path]:
    """Return those paths of the checkout that no commit holds."""
    inside = [path for path in paths if not path.is_absolute() and (root / path).exists()]
    return [path for path in inside if not git(root, "ls-files", "--", str(path))]


def git(root: Path, *arguments: str) -> str:
    """Return what Git says; what it refuses is a ValueError."""
    found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if found.returncode:
        said = found.stderr.strip().splitlines()
        reason = said[-1] if said else "failed"
        raise ValueError(f"git {arguments[0]}: {reason}: compare in a clone of the repository")
    return found.stdout.strip()


def _dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    found = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if found.returncode:
        said = (found.stderr or found.stdout).strip().splitlines()
        raise ValueError(f"dvc {arguments[0]}: {said[-1] if said else 'failed'}: run `dvc repro` first")
    return found.stdout.strip()


def _link(source: Path, target: Path) -> None:
    """Put a file or folder there without copying its contents, where the file system allows."""

    def linked(file: str, at: str) -> None:
        try:
            os.link(file, at)
        except OSError:
            shutil.copy2(file, at)

    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=linked, dirs_exist_ok=True)
    else:
        linked(str(source), str(target))
