"""Where evidence is read from: the files of a checkout, or a Git revision without checking it out."""

import os
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from stages.privacy.artifact_names import is_plain
from stages.privacy.strict_json import LARGEST

_UNTRUSTED = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull, "GIT_NO_LAZY_FETCH": "1"}
"""Replacements and grafts would show another history than the one that has been cloned."""
_SETTINGS = (
    "core.commitGraph=false",  # a cache of who is whose parent, which nobody checks when it is read
    "log.showRoot=true",  # a file of the first commit, or of a merge alone, was there too
    "log.diffMerges=separate",
    "advice.graftFileDeprecated=false",
)
_GIT = ("git", *(word for setting in _SETTINGS for word in ("-c", setting)))
_PATTERNS = ("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS")
"""Variables that change what a path given to git means."""
_HARMLESS = re.compile(
    r"error in (?:commit|tag) [0-9a-f]+: |error: refs/\S+: invalid sha1 pointer 0+$|hint: |notice: |warning"
)
"""What `git fsck` says of a repository that shows all the same what was committed: an author without a date,
a name for a branch that is gone."""
_NAMES = "surrogateescape"
"""Names of files are bytes."""


class EvidenceSource(Protocol):
    """Files by name, at one moment."""

    @property
    def revision(self) -> str | None:
        """The commit, or None for the files of a checkout."""

    def described(self) -> str:
        """Return in words where this is."""

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; None where there is none; ValueError where it is no plain file."""

    def names(self, folder: str) -> list[str]:
        """Return the names of what lies in a folder; none where there is no such folder."""


@dataclass(frozen=True)
class Checkout:
    """The files below a directory."""

    root: Path
    revision: None = None

    def described(self) -> str:
        """Return in words where this is."""
        return "the files of this checkout"

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; a symbolic link anywhere on its way may lead elsewhere: refused."""
        if not is_plain(path):
            raise ValueError(f"{path!a} is no plain path")
        place = self.root
        for part in path.split("/"):
            place = place / part
            if place.is_symlink():
                raise ValueError(f"{path} is or lies behind a symbolic link")
        try:
            found = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is not a file")
        if found.st_size > LARGEST:
            raise ValueError(f"{path} is larger than {LARGEST} bytes")
        return place.read_bytes()

    def names(self, folder: str) -> list[str]:
        """Return the names of what lies in a folder."""
        place = self.root / folder
        return sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []


@dataclass(frozen=True)
class Revision:
    """The files of one commit."""

    repository: "Repository"
    revision: str

    def described(self) -> str:
        """Return the commit, its day and the first line of its message."""
        return f"commit {self.revision}, {self.repository.subject(self.revision)}"

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes as the commit holds them."""
        if not is_plain(path):
            raise ValueError(f"{path!a} is no plain path")
        return self.read_all([path]).get(path)

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of those ``paths`` that are files of the commit."""
        blobs = self.repository.blobs([self.revision], paths)[self.revision]
        return dict(zip(blobs, self.repository.contents(list(blobs.values())), strict=True))

    def names(self, folder: str) -> list[str]:
        """Return the names of what lies in a folder of the commit."""
        return self.repository.names(self.revision, folder)


@dataclass(frozen=True)
class Repository:
    """The Git repository that a directory belongs to, and the folder of it whose files are read."""

    root: Path
    elsewhere: str | None = None
    """The folder, from the top, with a slash at its end, "" for the top itself; None: where ``root`` lies."""

    @cached_property
    def folder(self) -> str:
        """The folder whose files are read, from the top, with a slash at its end; "" is the top."""
        if self.elsewhere is not None:
            return self.elsewhere
        return self._git("rev-parse", "--show-prefix").stdout.decode(errors=_NAMES).rstrip("\n")

    def commit(self, revision: str) -> str:
        """Return the full name of the commit that ``revision`` means; unknown ones are a ValueError."""
        if revision.startswith("-") or not revision.isprintable():
            raise ValueError(f"{revision!a} is not a Git revision")
        found = self._git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", check=False)
        if found.returncode:
            self.require()
            raise ValueError(f"{revision!a} is not a Git revision of {self.root}: fetch it, or name another")
        return found.stdout.decode().strip()

    def require(self) -> None:
        """Refuse a directory that is in no Git repository."""
        self._git("rev-parse", "--git-dir")

    def require_undamaged(self) -> None:
        """Refuse what is no repository, and one whose objects are missing or other than their names say.

        Git finds such a file "missing" as it does one that was never there, and a clone by path copies both.
        """
        self.require()
        partial = self._git("config", "--get-regexp", r"^remote\..*\.promisor$", check=False)
        if b"true" in partial.stdout.split():
            raise ValueError(
                f"{self.root} is a partial clone, which lacks files: clone it anew, without --filter"
            )
        found = self._git("fsck", "--full", "--no-dangling", "--no-reflogs", "--no-progress", check=False)
        said = (found.stderr + found.stdout).decode(errors="replace").splitlines()
        damage = [line for line in said if not _HARMLESS.match(line)]
        if found.returncode and damage:
            raise ValueError(
                f"the Git objects of {self.root} are damaged ({' '.join(damage[0].split())}), so nothing can "
                "be told from them: clone it anew, with `git clone --no-local`"
            )

    def commits(self) -> list[str]:
        """Return every commit that any ref reaches, the experiments of DVC included, newest first.

        A shallow clone is refused: it cannot show what came before. So is one that is damaged.
        """
        if self._git("rev-parse", "--is-shallow-repository").stdout.strip() != b"false":
            raise ValueError(
                f"{self.root} is a shallow clone, which lacks history: `git fetch --unshallow` brings it"
            )
        self.require_undamaged()
        return self._git("rev-list", "--all", "--date-order").stdout.decode().split()

    def ancestors(self) -> list[str]:
        """Return the commits that the checkout builds on, its own included; none before the first commit."""
        return self._git("rev-list", "HEAD", "--", check=False).stdout.decode().split()

    def subject(self, commit: str) -> str:
        """Return the day and the first line of a commit's message."""
        shown = self._git("show", "--no-patch", "--format=%cs %s", commit).stdout
        return shown.decode(errors="replace").strip()

    def blobs(self, commits: Sequence[str], paths: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """Return, for each commit, the object names of those ``paths`` that are files in it."""
        names = [(commit, path) for commit in commits for path in paths]
        asked = "".join(f"{commit}:{self.folder}{path}\n" for commit, path in names)
        answers = self._git(
            "cat-file", "--batch-check=%(objecttype) %(objectname)", given=asked.encode(errors=_NAMES)
        )
        found: dict[str, dict[str, str]] = {commit: {} for commit in commits}
        for (commit, path), line in zip(
            names, answers.stdout.decode(errors=_NAMES).split("\n")[:-1], strict=True
        ):
            kind, _, name = line.partition(" ")
            if kind == "blob":
                found[commit][path] = name
        return dict(found)

    def names(self, commit: str, folder: str) -> list[str]:
        """Return the names of what lies in a folder of a commit."""
        tree = ("ls-tree", "-z", "--name-only", "--full-tree", "--", commit)
        listed = self._git(*tree, f"{self.folder}{folder}/").stdout.decode(errors="replace")
        return [path.rpartition("/")[2] for path in listed.split("\0") if path]

    def ever(self, folder: str) -> list[str]:
        """Return the path of every file that any commit of any ref ever had in a folder."""
        listed = self._ever(f":(top,literal){self.folder}{folder}")
        return sorted(path.removeprefix(self.folder) for path in listed)

    def folders_with(self, files: Sequence[str]) -> list[str]:
        """Return every folder of the repository in which any commit of any ref ever had one of ``files``.

        Folders are told from the top, with a slash at their end; the last part of a file may be ``*``.
        """
        ends = "|".join(re.escape(file).replace(r"\*", "[^/]+") for file in files)
        file = re.compile(rf"(?:^|(?<=/))(?:{ends})\Z")
        listed = self._ever(*(f":(top,glob)**/{file}" for file in files))
        return sorted({path[: place.start()] for path in listed if (place := file.search(path))})

    def _ever(self, *pathspecs: str) -> set[str]:
        log = ("log", "--all", "-m", "--full-history", "--no-renames", "--format=", "--name-only", "-z")
        listed = self._git(*log, "--no-relative", "--", *pathspecs).stdout.decode(errors=_NAMES)
        found = {*listed.split("\0")} - {""}
        if any("\n" in path for path in found):
            raise ValueError(f"{self.root} has evidence under a name that breaks a line: it cannot be read")
        return found

    def contents(self, blobs: Sequence[str]) -> list[bytes]:
        """Return the bytes of objects; one that is huge or missing is a ValueError."""
        asked = "".join(f"{blob}\n" for blob in blobs).encode()
        for line in self._git("cat-file", "--batch-check=%(objectsize)", given=asked).stdout.splitlines():
            if not line.isdigit() or int(line) > LARGEST:
                raise ValueError(
                    f"a file of {self.root} is missing from its history, or over {LARGEST} bytes"
                )
        answer, found = self._git("cat-file", "--batch=%(objectsize)", given=asked).stdout, []
        while answer:
            size, _, rest = answer.partition(b"\n")
            found.append(rest[: int(size)])
            answer = rest[int(size) + 1 :]
        return found

    def _git(
        self, *arguments: str, given: bytes | None = None, check: bool = True
    ) -> "subprocess.CompletedProcess[bytes]":
        try:
            done = subprocess.run(
                [*_GIT, *arguments],
                cwd=self.root,
                env={**_surroundings(), **_UNTRUSTED, "LC_ALL": "C"},
                input=given,
                capture_output=True,
            )
        except FileNotFoundError:
            raise ValueError("git is not installed, and only git can read a revision") from None
        if check and done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise ValueError(f"git cannot read {self.root}: {said[-1] if said else 'it said nothing'}")
        return done


def _surroundings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _PATTERNS}
