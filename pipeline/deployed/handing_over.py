"""Bring what a run left in its clone to where people look for it: a branch, and DVC's remote."""

import os
from pathlib import Path

from pipeline.compare.surroundings import with_identity
from pipeline.deployed.clone import BASE, branch_of, has_remote, is_clone, state_folder
from pipeline.deployed.leaving import changed_by_the_run
from pipeline.dvc_command import dvc
from pipeline.git import git
from stages.core.scratch import private_folder

_PLAIN = ("-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null")


def hand_over(root: Path, run: str) -> str | None:
    """Commit parameters, dvc.lock and evidence as branch ``runs/RUN`` of the repository; return the branch.

    None in a checkout of somebody's, who commits, and where nothing is new. A second time the branch grows.
    What a stage that failed has removed stays as it was committed.

    Guarantee: where the repository cannot be reached, the evidence of what was spent is kept as a Git bundle
    in the state folder, which the error names.
    """
    if not is_clone(root):
        return None
    changed = changed_by_the_run(root)
    if changed:
        git(root, "add", "--", *changed)
    if git(root, "diff", "--cached", "--name-only"):
        with with_identity(root):  # whatever the account signs or checks by default
            git(root, *_PLAIN, "commit", "--no-verify", "--quiet", "--message", f"What run {run} left")
    base = git(root, "config", "--local", "--get", BASE)
    if git(root, "rev-parse", "HEAD") == base:
        return None
    branch = branch_of(run)
    try:
        git(root, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    except ValueError as error:
        kept = private_folder(state_folder(os.environ) / "unpushed") / f"{run}.bundle"
        git(root, "bundle", "create", str(kept), "HEAD", f"^{base}")  # a clone without blobs has no more
        raise ValueError(
            f"{error}; what the run left is in {kept}: `git fetch` it into the repository"
        ) from None
    if has_remote(root):  # last: evidence is small and comes first
        dvc(root, "push", "--run-cache")
    return branch
