"""Where a user's records lie: the folder, the file of rows inside it, and how it is written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.git import git
from stages.records.source import Format, Source

FORMATS: Mapping[str, Format] = {".parquet": "messages", ".json": "llava", ".jsonl": "openai"}
"""What the end of a file's name says."""
_HEAD = 1 << 16


@dataclass(frozen=True)
class Place:
    """A folder of records, as params.yaml names it."""

    path: Path
    rows: str | None
    format: Format

    def source(
        self, *, unit: str, kind: str | None, split: str | None, on_bad_record: Literal["stop", "skip"]
    ) -> Source:
        """Return the section of params.yaml."""
        return Source(
            path=self.path,
            rows=self.rows,
            format=self.format,
            unit=unit,
            kind=kind,
            split=split,
            on_bad_record=on_bad_record,
        )


def place_of(data: Path, rows: str | None, option: str = "--data") -> Place:
    """Return where the records of ``data``, a folder or the file of rows, lie; ``rows`` names that file.

    Errors: a ValueError where nothing is there, where several files might be meant, where the file's end
    says nothing of its format, and where Git or DVC would take what does not belong to the records.
    """
    if not data.exists():
        told = "does not exist: name the file of rows, or the folder that holds it"
        raise ValueError(f"{option} {data} {told}")
    if data.is_file():
        if rows is not None:
            raise ValueError(f"{option} {data} is the file of rows itself: leave out --rows")
        _require_of_its_own(data.parent, data)
        return _place(data.parent, data.name)
    _require_of_its_own(data, data)
    return _place(data, rows or _only_file_of_rows(data))


def _place(folder: Path, rows: str | None) -> Place:
    where = from_here(folder)
    if rows is None:
        return Place(where, None, "messages")
    file = folder / rows
    if not file.is_file():
        raise ValueError(f"{file} is not a file: --rows names a file inside {folder}")
    if file.suffix not in FORMATS:
        raise ValueError(f"{file} ends in none of {', '.join(FORMATS)}: rename it to what it is")
    if file.suffix == ".jsonl":
        _require_chat(file)
    return Place(where, rows, FORMATS[file.suffix])


def require_out_of_git(place: Place) -> None:
    """Refuse private records that `git add` would take."""
    root = Path.cwd()
    if place.path.is_absolute():
        return
    try:
        git(root, "check-ignore", "--quiet", str(place.path / "any"))
    except ValueError:
        raise ValueError(
            f"{place.path} is inside the checkout, and `git add` would take the records: keep them "
            f"elsewhere, or put `/{place.path}/` into .gitignore"
        ) from None


def from_here(folder: Path) -> Path:
    """Return a folder as params.yaml names it: relative inside the checkout, absolute elsewhere."""
    found, here = folder.resolve(), Path.cwd().resolve()
    return found.relative_to(here) if found.is_relative_to(here) else found


def _require_of_its_own(folder: Path, named: Path) -> None:
    if Path.cwd().resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{named} is the checkout's folder, above it, or directly in it, and DVC watches the whole "
            "folder of records: move the rows, and their images, into a folder of their own"
        )


def _only_file_of_rows(folder: Path) -> str | None:
    """Return the one file that can hold the rows; None where all of them are parquet, which are shards."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix in FORMATS)
    if not found:
        raise ValueError(
            f"{folder} holds no file that ends in {', '.join(FORMATS)}: name its rows with --rows"
        )
    if len(found) == 1:
        return found[0]
    if all(name.endswith(".parquet") for name in found):
        return None
    raise ValueError(f"{folder} holds {', '.join(found[:5])}: say with --rows which file holds the rows")


def _require_chat(file: Path) -> None:
    """Refuse a JSONL file of another layout, by its first line."""
    with file.open("rb") as opened:
        line = opened.readline(_HEAD).decode(errors="replace")
    try:
        first = json.loads(line)
    except ValueError:
        return  # too long, or broken: whoever reads it says where
    if isinstance(first, dict) and "messages" not in first:
        raise ValueError(
            f"{file} holds {sorted(first)[:6]} a line and no 'messages': write OpenAI's chat layout, or "
            "LLaVA's conversations as one JSON list in a .json file"
        )
