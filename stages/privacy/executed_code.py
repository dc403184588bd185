"""Which code evidence says that each release was made by, and whether a commit holds just that."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.core.canonical import canonical_digest
from stages.privacy.artifact_names import is_plain
from stages.privacy.evidence import CHOICES, METRICS, STAGE_OF, TRACE, Evidence

_CODE = "stages/"


@dataclass(frozen=True)
class Executed:
    """The code of one stage as its output claims it."""

    file: str
    stage: str
    commit: str
    digest: str
    """SHA-256 over names and contents of the files that ran (``ResolvedInputs.code_digest``)."""
    paths: tuple[str, ...]
    """Those files, as dvc.lock records them."""

    def is_that_of(self, contents: Mapping[str, bytes]) -> bool:
        """Tell whether these contents are the code that ran; each path that is missing makes it another."""
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
        return canonical_digest(digests) == self.digest


def executed_code(evidence: Evidence) -> Iterator[Executed]:
    """Yield the code of every stage that released something; what is not told is left out."""
    told: dict[str, Any] = {TRACE: evidence.values.get(TRACE)}
    for file in (*CHOICES, METRICS):
        told[file] = evidence.values.get(file, {}).get("made_by")
    for file, made_by in told.items():
        claim = made_by if isinstance(made_by, dict) else {}
        commit, digest = claim.get("commit"), claim.get("code")
        deps = evidence.lock.digests(STAGE_OF[file], "deps")
        paths = tuple(path for path in deps if path.startswith(_CODE) and is_plain(path))
        if isinstance(commit, str) and isinstance(digest, str) and paths:
            yield Executed(file, STAGE_OF[file], commit, digest, paths)
