"""Read JSON that somebody else wrote: what is wrong with it becomes one sentence that says where."""

import json
from pathlib import Path
from typing import Any

from stages.records.refusal import first_sentence


def read_text(file: Path) -> str:
    """Return the UTF-8 text of ``file``, without a byte order mark."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 text at byte {error.start}: save it so or set format"
        ) from None
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}): check path and rows") from None


def parse_json(text: str, where: str) -> Any:
    """Return the JSON value in ``text``, or raise a ValueError that starts with ``where``."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON ({first_sentence(error)}): repair it") from None
