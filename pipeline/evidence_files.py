"""Read all evidence of one moment, whatever state it is in."""

from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.evidence_source import EvidenceSource
from stages.privacy.evidence import EXPORTS, LOCK, READ, Evidence, is_export, read_evidence
from stages.privacy.findings import Finding


def evidence_at(source: EvidenceSource) -> Evidence:
    """Return the evidence of ``source``; what is there and cannot be read is told by its findings."""
    contents, unread = {}, []
    for path in (*READ, *filter(is_export, (f"{EXPORTS}/{name}" for name in source.names(EXPORTS)))):
        try:
            content = source.read(path)
        except ValueError as error:
            unread.append(Finding(path, str(error).removeprefix(f"{path} ")))
            continue
        if content is not None:
            contents[path] = content
    lock = None
    if LOCK in contents:
        try:
            lock = _lock(contents[LOCK])
        except (YAMLError, ValueError, RecursionError):
            unread.append(Finding(LOCK, "is not valid YAML"))
    return read_evidence(contents, lock, unread)


@lru_cache(maxsize=64)
def _lock(content: bytes) -> Any:
    """Return the value of ``dvc.lock``, which nobody changes; half a second a file."""
    return YAML(typ="safe", pure=True).load(content)
