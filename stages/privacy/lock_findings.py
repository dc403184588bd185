"""Compare the evidence with what DVC recorded when it ran the stages."""

from collections.abc import Iterator

from stages.privacy.evidence import ATTACHED, FILES, LOCK, STAGE_OF, Evidence
from stages.privacy.findings import Finding, shown


def lock_findings(evidence: Evidence) -> Iterator[Finding]:
    """Yield every file that is not the one that a stage wrote, or that a later stage read.

    DVC's digests are not keyed: whoever rewrites a file can rewrite them. They find what somebody forgot.
    """
    for file, stage in {**STAGE_OF, **ATTACHED}.items():
        if file not in evidence.contents:
            continue
        recorded = evidence.lock.digests(stage, "outs").get(file)
        if recorded is None:
            yield Finding(file, "is not recorded in dvc.lock")
        elif recorded != evidence.md5(file):
            yield Finding(file, "is not the file that dvc.lock records")
    yield from _read_as_written(evidence)


def _read_as_written(evidence: Evidence) -> Iterator[Finding]:
    """Yield what an evidence stage read and what is not what another stage wrote, by DVC's own record."""
    lock = evidence.lock
    written = {
        path: digest for stage in lock.stages() for path, digest in lock.digests(stage, "outs").items()
    }
    decisive = (*STAGE_OF.values(), "encode")
    for stage in dict.fromkeys((*decisive, *ATTACHED.values())):
        for path, digest in lock.digests(stage, "deps").items():
            if written.get(path, digest) != digest:
                place = path if path in FILES else LOCK
                yield Finding(
                    place,
                    f"stage {stage} read another {shown(path)} than the one recorded",
                    "error" if stage in decisive else "warning",
                )
