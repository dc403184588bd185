"""Compare the code that evidence says was run with the commit that it names."""

from pathlib import Path

from pipeline.evidence_source import Repository, Revision
from stages.privacy.evidence import Evidence
from stages.privacy.executed_code import Executed, executed_code
from stages.privacy.findings import Finding, shown


def checked_code(root: Path, evidence: Evidence) -> tuple[str, list[Finding]]:
    """Return in words whose code every release ran, and a warning for each that no commit shows.

    Edge cases: outside Git nothing is checked. A commit that is not here and code that was changed and not
    committed are warnings: nobody can read what ran.
    """
    claims, repository = [*executed_code(evidence)], Repository(root)
    try:
        repository.require()
    except ValueError as error:
        return f"not checked: {error}", []
    commits, found = set[str](), list[Finding]()
    for claim in claims:
        problem = _problem(repository, claim)
        if problem is None:
            commits.add(claim.commit)
        else:
            found.append(Finding(claim.file, problem, "warning"))
    if found or not claims:
        return "not that of a commit: see the findings" if found else "not told", found
    return f"that of commit {', '.join(sorted(commit[:12] for commit in commits))}", found


def _problem(repository: Repository, claim: Executed) -> str | None:
    try:
        revision = Revision(repository, repository.commit(claim.commit))
    except ValueError:
        return (
            f"was made at commit {shown(claim.commit)}, it says, which is not here: nobody can read what ran"
        )
    try:
        code = revision.read_all(claim.paths)
    except ValueError as error:
        return f"was made at commit {claim.commit[:12]}, it says, whose code cannot be read here: {error}"
    if claim.is_that_of(code):
        return None
    return (
        f"was made by other code than that of commit {claim.commit[:12]}, which it names: by changes that "
        "were not committed, or another commit's"
    )
