"""Evidence of every version that was ever written, and ways to change a copy of it in memory."""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.canonical import canonical_json
from stages.privacy.evidence import LOCK, READ, Evidence, read_evidence

EXAMPLES = Path(__file__).parent / "evidence"
VERSIONS = sorted(path.name for path in EXAMPLES.iterdir())
Files = dict[str, bytes]
_MD5 = re.compile(rb"(?<=md5: )[0-9a-f]{32}")


def stored(version: str) -> Files:
    """Return the files of one example."""
    folder = EXAMPLES / version
    return {name: (folder / name).read_bytes() for name in READ if (folder / name).exists()}


def read(files: Files) -> Evidence:
    """Return what the audit makes of files."""
    return read_evidence(files, _lock(files[LOCK]))


def _lock(content: bytes) -> Any:
    """Return the value of a dvc.lock; half a second the first time, little where only digests differ."""
    digests = [match.decode() for match in _MD5.findall(content)]
    numbers = itertools.count()
    skeleton = _MD5.sub(lambda _: b"digest-%d" % next(numbers), content)
    return _filled(_parsed(skeleton), digests)


@cache
def _parsed(content: bytes) -> Any:
    return YAML(typ="safe", pure=True).load(content)


def _filled(value: Any, digests: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, digests) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, digests) for item in value]
    if isinstance(value, str) and value.startswith("digest-"):
        number, _, suffix = value.removeprefix("digest-").partition(".")
        return digests[int(number)] + (f".{suffix}" if suffix else "")
    return value


def written(folder: Path, files: Files) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def replaced(files: Files, file: str, content: bytes) -> Files:
    """Return files with one replaced, and its MD5 replaced wherever dvc.lock holds it, as a forger does."""
    before, after = (hashlib.md5(text).hexdigest().encode() for text in (files[file], content))
    return {**files, file: content, LOCK: files[LOCK].replace(before, after)}


def edited(files: Files, file: str, edit: Callable[[Any], Any]) -> Files:
    """Return files with the JSON value of one edited in place, and dvc.lock made to fit."""
    value = json.loads(files[file])
    edit(value)
    return replaced(files, file, canonical_json(value))


def scalars(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every scalar in a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from scalars(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from scalars(item, (*path, index))
    else:
        yield path


def lie(scalar: Any) -> Any:
    """Return a plausible lie of the same type."""
    if isinstance(scalar, bool):
        return not scalar
    if isinstance(scalar, int):
        return scalar + 1
    if isinstance(scalar, float):
        return scalar * 0.5
    return 0.25 if scalar is None else scalar + "x"


def lied(value: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy of a JSON value with the scalar at ``path`` changed."""
    copy = json.loads(json.dumps(value))
    parent = copy
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = lie(parent[path[-1]])
    return copy
