"""Private clones of the checkout in which experiments run: what a person works on is not moved.

DVC prepares an experiment in the checkout that it is started in, even for ``--temp``, and one at a time; a
run that is stopped there would leave somebody's parameters changed. Clones share DVC's cache and scratch.
"""

import os
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.dvc_command import dvc
from pipeline.git import git, uncommitted
from pipeline.runner import Runner, Stopped

DECIDES = ("stages", "pipeline/python.sh", "params.yaml", "dvc.yaml")
"""What has to be committed, for a clone holds what is."""


@dataclass(frozen=True)
class Clone:
    """One clone, in which one experiment runs at a time."""

    root: Path
    """The checkout that it is of."""
    runner: Runner

    @classmethod
    def of(cls, root: Path, folder: Path, linked: Iterable[Path], commit: str) -> "Clone":
        """Make a clone of ``commit`` at ``folder``, in place of one that an earlier call left.

        ``linked`` are the files and folders that runs read and Git does not know, relative to the checkout.
        """
        shutil.rmtree(folder, ignore_errors=True)
        git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
        git(folder, "checkout", "--quiet", "--detach", git(root, "rev-parse", commit))
        for path in linked:
            _link(root / path, folder / path)
        cache = dvc(root, "cache", "dir").splitlines()[-1]
        dvc(folder, "cache", "dir", "--local", cache)
        dvc(folder, "checkout", "--quiet", "--allow-missing")  # what is missing a run makes, or DVC has kept
        return cls(root, Runner(folder))

    def reset(self) -> None:
        """Bring back what is committed: DVC then knows of the checkout's run, and of none made here."""
        git(self.runner.root, "reset", "--quiet", "--hard")

    def run(self, name: str, changes: Mapping[str, str], targets: Sequence[str]) -> None:
        """Run an experiment and hand it to the checkout; raises as ``Runner.run``.

        Without a ``reset`` it goes on from what the last one left, and what both need does not run again:
        ``changes`` names every parameter that any experiment of this clone changes, so nothing is inherited.
        """
        folder = self.runner.root
        self.runner.experiment(name, changes, targets)
        refs = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
        for ref in refs:
            if ref.endswith(f"/{name}"):
                git(self.root, "fetch", "--quiet", str(folder), f"+{ref}:{ref}")

    def remove(self) -> None:
        """Remove the clone, when what it made has been handed over."""
        shutil.rmtree(self.runner.root, ignore_errors=True)


@dataclass(frozen=True)
class Revision:
    """The commit that a comparison or a sweep is of, and what of its inputs Git does not know."""

    root: Path
    commit: str
    linked: tuple[Path, ...]

    @classmethod
    def of(cls, root: Path, read: Iterable[Path]) -> "Revision":
        """Return what is checked out; changes of code, parameters or files that runs ``read`` are refused.

        So is a changed note of DVC's beside such a file: a clone would take the file that the old one names.
        """
        files = [path for path in read if not path.is_absolute()]
        _require_committed(root, [*files, *(Path(f"{path}.dvc") for path in files)])
        return cls(root, git(root, "rev-parse", "HEAD"), tuple(_unknown_to_git(root, files)))

    def clone(self, folder: Path) -> Clone:
        """Return a new clone of it."""
        return Clone.of(self.root, folder, self.linked, self.commit)


class PreparedClone:
    """A clone for rehearsals, made when something is first asked of it: DVC has brought it up to date.

    So backbone, public records and token budget are those of the commit, whatever the checkout holds.
    """

    def __init__(self, revision: Revision, folder: Path) -> None:
        """A clone of ``revision`` at ``folder``."""
        self._revision, self._folder = revision, folder
        self._clone: Clone | None = None
        self._refused: BaseException | None = None
        self._is_stopped = False
        self._gate = threading.Lock()

    def runner(self) -> Runner:
        """Return what runs programs in it; raises as ``Runner.run`` where it cannot be brought up to date."""
        with self._gate:
            if self._refused is not None:
                raise self._refused
            if self._clone is None:
                try:
                    self._clone = self._revision.clone(self._folder)
                    if self._is_stopped:
                        raise Stopped("a clone for rehearsals: stopped")
                    self._clone.runner.upstream("calibrate")
                except BaseException as error:
                    self._refused = error  # whoever waited does not try again
                    raise
            return self._clone.runner

    def stop(self) -> None:
        """End what runs in it, and begin nothing more."""
        self._is_stopped = True
        if self._clone is not None:
            self._clone.runner.stop()

    def remove(self) -> None:
        """Remove it."""
        if self._clone is not None:
            self._clone.remove()


def _require_committed(root: Path, read: Iterable[Path] = ()) -> None:
    """Refuse changes that a clone would not have, in what runs ``read`` as far as Git knows it too."""
    try:
        changed = uncommitted(root, *DECIDES) + uncommitted(root, *map(str, read), untracked=False)
    except ValueError as error:
        raise ValueError(f"{error}: experiments need a clone of the repository") from None
    if changed:
        names = ", ".join(changed[:3])
        raise ValueError(f"runs are of what is committed: commit {names}, or restore what is there")


def _unknown_to_git(root: Path, paths: Iterable[Path]) -> list[Path]:
    """Return those files and folders of the checkout of which Git does not know all, ignored ones too."""
    return [
        path
        for path in paths
        if (root / path).exists() and git(root, "ls-files", "--others", "--", str(path))
    ]


def _link(source: Path, target: Path) -> None:
    """Put what is missing of a file or folder there, as links where the file system allows."""

    def linked(file: str, at: str) -> None:
        if os.path.exists(at):  # committed, or a part of what was put there before
            return
        try:
            os.link(file, at)
        except OSError:
            shutil.copy2(file, at)

    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=linked, dirs_exist_ok=True)
    else:
        linked(str(source), str(target))
