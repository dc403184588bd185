"""Compare the code that evidence says was run with the commit that it names."""

from pathlib import Path

from pipeline.evidence_source import Repository, Revision
from stages.privacy.evidence import Evidence
from stages.privacy.executed_code import Executed, executed_code
from stages.privacy.findings import Finding, shown


def checked_code(root: Path, evidence: Evidence) -> tuple[str, list[Finding]]:
    """Return in words whose code every release ran, and a warning for each that no commit shows.

    Edge cases: outside Git, and for a commit that is not here, nothing is checked. Code that was changed and
    not committed is a warning: nobody can read what ran.
    """
    claims = [*executed_code(evidence)]
    commits, found = set[str](), list[Finding]()
    for claim in claims:
        try:
            is_that = _is_that_of_its_commit(Repository(root), claim)
        except ValueError:
            return f"not checked: commit {shown(claim.commit)} of {claim.file} is not here", found
        if is_that:
            commits.add(claim.commit)
        else:
            found.append(
                Finding(
                    claim.file,
                    f"was made by other code than that of commit {claim.commit[:12]}, which it names: by "
                    "changes that were not committed, or another commit's",
                    "warning",
                )
            )
    if found or not claims:
        return "not that of a commit: see the findings" if found else "not told", found
    return f"that of commit {', '.join(sorted(commit[:12] for commit in commits))}", found


def _is_that_of_its_commit(repository: Repository, claim: Executed) -> bool:
    revision = Revision(repository, repository.commit(claim.commit))
    return claim.is_that_of(revision.read_all(claim.paths))
