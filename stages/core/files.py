"""Read and write files so that a reader never meets a half-written one.

Everything is written to a temporary sibling, ``.NAME.XXXX.partial``, flushed to disk and renamed. JSON is
canonical: sorted keys, two spaces, one newline at the end, no NaN.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.canonical import canonical_json

Json = Any
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk, or of the user's share of it, that is full."""
PARTIAL = ".partial"
"""How temporary siblings end; Git ignores them, for kill -9 may leave one that holds private records."""


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``content`` in one step; a crash or a full disk leaves the old file whole.

    An error of the operating system names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by UTF-8 ``text`` in one step."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Json) -> None:
    """Replace ``path`` by canonical JSON in one step."""
    write_bytes(path, canonical_json(value))


def read_json(path: Path) -> Json:
    """Return the JSON value in ``path``; a missing or broken file is a ValueError that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro` (or `dvc pull`) to make it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield an empty sibling directory that takes the place of ``path`` when the block ends well.

    Guarantee: ``path`` is the whole old directory, the whole new one or, between two renames, not there.

    Edge cases: an exception in the block removes the sibling and leaves ``path`` as it was; that of a full
    disk names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    building = _partial_sibling(path)
    try:
        yield building
        for entry in (building, *building.rglob("*")):
            _sync(entry)
        if path.exists():
            old = _partial_sibling(path)
            os.replace(path, old)
            os.replace(building, path)
            shutil.rmtree(old)
        else:
            os.replace(building, path)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
            error.filename = str(path)
        raise
    sync_directory(path.parent)


def _partial_sibling(path: Path) -> Path:
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))
    folder.chmod(0o755)
    return folder


def sync_directory(path: Path) -> None:
    """Make a rename in ``path`` durable."""
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of a directory's sorted names and file digests, in hex."""
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    try:
        with open(path, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro` (or `dvc pull`) to make it") from None
